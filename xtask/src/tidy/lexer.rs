//! Enough of Rust's tokens to tell code from comments and strings.

/// The text with comments and the content of strings replaced by spaces; lines and columns stay.
pub(crate) fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut blanked = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end =
            at + skipped(&characters[at..], at.checked_sub(1).map(|before| characters[before]));
        if end == at {
            blanked.push(characters[at]);
            at += 1;
            continue;
        }
        blanked.extend(characters[at..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
        at = end;
    }
    blanked
}

/// The length of the comment, string or character that starts here, or zero.
fn skipped(rest: &[char], before: Option<char>) -> usize {
    match rest {
        ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => string(rest, 0),
        ['r', '"' | '#', ..] if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') => {
            let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
            // `r#name` is an identifier.
            if rest.get(1 + hashes) == Some(&'"') { raw_string(rest, hashes) } else { 0 }
        }
        ['\'', '\\', ..] => {
            rest.iter().skip(3).position(|&c| c == '\'').map_or(rest.len(), |end| end + 4)
        }
        // A lifetime has no second quote.
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char], hashes: usize) -> usize {
    let mut at = hashes + 2;
    while at < rest.len() {
        let closes = rest[at] == '"'
            && rest[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            ("f(\"un\\\"safe\") + 1", "f(          ) + 1"),
            ("r#\"a\"b\"# c", "         c"),
            ("'\\'' 'x' &'a b", "         &'a b"),
            ("r#fn", "r#fn"),
        ];
        for (text, expected) in cases {
            assert_eq!(blank(text), expected, "{text}");
        }
    }
}
