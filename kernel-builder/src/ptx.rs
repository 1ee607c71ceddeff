//! Reads the outline of a PTX module: version, target, and each function with its parameters and body.

use crate::error::PtxError;

/// A PTX module, borrowed from its text.
#[derive(Debug)]
pub struct Module<'a> {
    /// The PTX version, such as `8.0`.
    pub version: &'a str,
    /// Entries and device functions with a body, in order.
    pub functions: Vec<Function<'a>>,
}

/// A function of a module.
#[derive(Debug)]
pub struct Function<'a> {
    /// The symbol.
    pub name: &'a str,
    /// True for a kernel entry, false for a device function.
    pub is_entry: bool,
    /// The `.param` declarations, without the comma.
    pub parameters: Vec<&'a str>,
    /// Index, from 0, of the line with the `{` that opens the body.
    pub body_start: usize,
    /// The lines of the body, without comments and without the outer braces.
    pub body: Vec<Line<'a>>,
}

/// A line of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number in the module, from 1.
    pub number: usize,
    /// The trimmed code.
    pub code: &'a str,
}

impl<'a> Module<'a> {
    /// Reads a module as LLVM and libNVVM print it: one directive or label a line, braces of a function
    /// alone on theirs.
    ///
    /// # Errors
    /// If a header directive is missing or a function has no end.
    pub fn parse(text: &'a str) -> Result<Module<'a>, PtxError> {
        let lines: Vec<&str> = text.lines().map(without_comment).collect();
        let version = lines
            .iter()
            .find_map(|line| line.strip_prefix(".version"))
            .ok_or(PtxError::NoDirective { directive: ".version" })?;
        let mut functions = Vec::new();
        let mut next = 0;
        while next < lines.len() {
            let Some((name, is_entry)) = function_header(lines[next]) else {
                next += 1;
                continue;
            };
            let header = next;
            let open = || PtxError::OpenFunction { name: name.to_owned(), line: header + 1 };
            let body_start = (header..lines.len())
                .find(|&index| lines[index].ends_with(['{', ';']))
                .ok_or_else(open)?;
            if lines[body_start].ends_with(';') {
                // A declaration only.
                next = body_start + 1;
                continue;
            }
            let end = closing_line(&lines, body_start).ok_or_else(open)?;
            functions.push(Function {
                name,
                is_entry,
                parameters: parameters(&lines[header..body_start]),
                body_start,
                body: (body_start + 1..end)
                    .map(|index| Line { number: index + 1, code: lines[index] })
                    .filter(|line| !line.code.is_empty())
                    .collect(),
            });
            next = end + 1;
        }
        Ok(Module { version: version.trim(), functions })
    }

    /// The kernel entries.
    pub fn entries(&self) -> impl Iterator<Item = &Function<'a>> {
        self.functions.iter().filter(|function| function.is_entry)
    }
}

impl Function<'_> {
    /// Bytes of the parameter block: each parameter at its natural alignment.
    pub fn parameter_bytes(&self) -> u32 {
        self.parameters.iter().fold(0, |offset, declaration| {
            let (bytes, align) = parameter_layout(declaration);
            offset.next_multiple_of(align) + bytes
        })
    }
}

/// The line with the brace that closes the one at the end of line `start`; inline assembly nests more.
fn closing_line(lines: &[&str], start: usize) -> Option<usize> {
    let mut depth = 0_i32;
    (start..lines.len()).find(|&index| {
        depth +=
            lines[index].matches('{').count() as i32 - lines[index].matches('}').count() as i32;
        depth == 0
    })
}

/// The code before a `//`, trimmed.
pub(crate) fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code).trim()
}

/// Name and kind, if the line opens a function: `.visible .entry name(` or `.func (…) name(`.
fn function_header(line: &str) -> Option<(&str, bool)> {
    let (is_entry, rest) = match (line.split_once(".entry "), line.split_once(".func ")) {
        (Some((_, rest)), _) => (true, rest),
        (None, Some((_, rest))) => (false, rest),
        (None, None) => return None,
    };
    // A function's result comes in parentheses before its name.
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('(') {
        Some(result) => result.split_once(')').map_or(rest, |(_, name)| name),
        None => rest,
    };
    let name = rest.trim_start().split(|c: char| !is_symbol(c)).next()?;
    (!name.is_empty()).then_some((name, is_entry))
}

pub(crate) fn is_symbol(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn parameters<'a>(header: &[&'a str]) -> Vec<&'a str> {
    header
        .iter()
        .filter_map(|line| line.find(".param ").map(|start| &line[start..]))
        .filter(|declaration| !declaration.contains(')') || declaration.ends_with(')'))
        .map(|declaration| declaration.trim_end_matches([',', ')', '(']).trim())
        .collect()
}

/// Bytes and alignment of `.param .align 8 .b8 name[48]`, or of `.param .u64 .ptr .align 1 name`, where
/// `.align` after the type is the pointee's.
fn parameter_layout(declaration: &str) -> (u32, u32) {
    let mut words = declaration.split_whitespace().peekable();
    let mut align = None;
    let mut scalar = 1;
    while let Some(word) = words.next() {
        if word == ".align" {
            align = words.next().and_then(|number| number.parse().ok());
        } else if let Some(bits) = word.strip_prefix(['.']).and_then(scalar_bits) {
            scalar = bits / 8;
            break;
        }
    }
    let count = declaration
        .rsplit_once('[')
        .and_then(|(_, count)| count.strip_suffix(']')?.parse::<u32>().ok())
        .unwrap_or(1);
    (scalar * count, align.unwrap_or(scalar).max(1))
}

fn scalar_bits(kind: &str) -> Option<u32> {
    kind.strip_prefix(['b', 'u', 's', 'f'])?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "\
//
.version 8.0
.target sm_90a
.address_size 64
.extern .func  (.param .b32 func_retval0) helper
(
	.param .b32 helper_param_0
)
;
.visible .entry first(
	.param .u64 .ptr .align 1 first_param_0, // a comment
	.param .align 16 .b8 first_param_1[40],
	.param .f32 first_param_2
)
{
	.reg .b32 	%r<2>;
	{ .reg .b32 t;
	}
	ret;
}
.func  (.param .b32 func_retval0) second(
	.param .b32 second_param_0
)
{
	ret;
}
";

    #[test]
    fn outline_of_a_module() {
        let module = Module::parse(MODULE).unwrap();
        assert_eq!(module.version, "8.0");
        let names: Vec<_> = module.functions.iter().map(|f| (f.name, f.is_entry)).collect();
        assert_eq!(names, [("first", true), ("second", false)]);
        assert_eq!(module.entries().count(), 1);
        let first = &module.functions[0];
        assert_eq!(first.body.len(), 4);
        assert_eq!(first.body[3], Line { number: 19, code: "ret;" });
    }

    #[test]
    fn parameter_block_follows_natural_alignment() {
        let module = Module::parse(MODULE).unwrap();
        // Pointer at 0, 40 bytes at 16, f32 at 56.
        assert_eq!(module.functions[0].parameter_bytes(), 60);
    }

    #[test]
    fn a_function_without_an_end_is_an_error() {
        let cut = MODULE.split("\tret").next().unwrap();
        let error = Module::parse(cut).unwrap_err();
        assert_eq!(error, PtxError::OpenFunction { name: "first".into(), line: 10 });
    }
}
