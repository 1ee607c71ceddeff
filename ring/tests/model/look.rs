//! What a look at a line may show.
//!
//! A device reads the words of a line one by one, in any order, while the host writes them one by one, in any order. So it
//! reads of each word either the item's or what was there before, and every such mix is tried: lines and words are those
//! of the protocol, and its functions say what they mean. A look that takes an item as a whole has read every word that
//! it goes by as the item's, so it makes no difference that a mix is tried in one step.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use kasmina_ring::protocol::{add_need, descriptor_of, has_come, line_words, words_of_look};
use kasmina_types::manifold::{
    DESCRIPTOR_WORDS, HEAD_WORDS, ItemDescriptor, LINE_WORDS, NEEDS, NO_RING, Need, data_of,
    names_need, tagged,
};

use crate::bounds::Fault;
use crate::numbers::{CAPACITY, Needed, Needs, minus, wide};

type Line = [u64; LINE_WORDS];

/// What the mixes of one line show.
type Mixes = Rc<[Seen]>;

/// What one mix of words shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether the head names a need.
    pub(crate) names_need: bool,
    /// The item if it has come, going by as many words as a look does where no line names a need.
    by_head: Option<ItemDescriptor>,
    /// The same where one does.
    by_all: Option<ItemDescriptor>,
}

impl Seen {
    /// The item if it has come; `rest` says whether any line of the look names a need.
    pub(crate) fn item(&self, rest: bool) -> Option<ItemDescriptor> {
        if rest { self.by_all } else { self.by_head }
    }
}

/// How far the line of an item is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Written {
    /// Nothing of it is.
    Nothing,
    /// Any words may be there, or not.
    Partly(Needs),
    /// All words are there.
    Whole(Needs),
}

/// All that looks at lines may show, each worked out once.
pub(crate) struct Looks {
    fault: Option<Fault>,
    known: RefCell<HashMap<(u8, Written), Mixes>>,
}

impl Looks {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self { fault, known: RefCell::default() }
    }

    /// What a look at the line of item `number` may show.
    pub(crate) fn at(&self, number: u8, written: Written) -> Mixes {
        let mut known = self.known.borrow_mut();
        let seen = known.entry((number, written)).or_insert_with(|| self.mixes(number, written));
        Rc::clone(seen)
    }

    fn mixes(&self, number: u8, written: Written) -> Mixes {
        let mut all = Vec::new();
        let mut add = |line: &Line| {
            let seen = self.see(line, number);
            if !all.contains(&seen) {
                all.push(seen);
            }
        };
        for before in self.before(number, written) {
            match written {
                Written::Nothing => add(&before),
                Written::Whole(needs) => add(&self.line(number, needs, &before)),
                Written::Partly(needs) => {
                    let after = self.line(number, needs, &before);
                    for are_new in 0..1_u32 << DESCRIPTOR_WORDS {
                        let is_new = |word: usize| are_new >> word & 1 == 1;
                        let word = |word| if is_new(word) { after[word] } else { before[word] };
                        add(&std::array::from_fn(word));
                    }
                }
            }
        }
        all.into()
    }

    /// What the place of an item may have had before: the item that was there, or what the host writes at the outset.
    /// Of those that were there still earlier a word would say as little, for it has another tag.
    fn before(&self, number: u8, written: Written) -> Vec<Line> {
        let of = |number, needs| line_words(&item(number, needs), wide(number));
        if self.fault == Some(Fault::NeedsAreWrittenLater) && matches!(written, Written::Partly(_))
        {
            return vec![of(number, [None; 2])];
        }
        let last = minus(number, CAPACITY as u8);
        let need = Some(Needed::new(0, last));
        vec![[tagged(0, wide(last)); LINE_WORDS], of(last, [None; 2]), of(last, [need; 2])]
    }

    /// The line that the host writes over another.
    fn line(&self, number: u8, needs: Needs, before: &Line) -> Line {
        let mut item = item(number, needs);
        if self.fault == Some(Fault::FirstPlaceIsFree) {
            item.needs.rotate_right(1);
        }
        let mut line = line_words(&item, wide(number));
        if self.fault == Some(Fault::RestIsNotWritten) && needs == [None; 2] {
            line[HEAD_WORDS..].copy_from_slice(&before[HEAD_WORDS..]);
        }
        line
    }

    fn see(&self, line: &Line, number: u8) -> Seen {
        let next = wide(number);
        let last_of_head = line[HEAD_WORDS - 1];
        let names_need = match self.fault {
            Some(Fault::NeedWithoutItsTag) => data_of(last_of_head) != NO_RING,
            _ => names_need(last_of_head, next),
        };
        let item = |names_need| {
            let (head, rest) = line[..words_of_look(names_need)].split_at(HEAD_WORDS);
            let has_come = match self.fault {
                Some(Fault::FirstWordIsEnough) => has_come(&head[..1], next),
                Some(Fault::NeedWithoutItsTag) => {
                    has_come(&head[..HEAD_WORDS - 1], next) && has_come(rest, next)
                }
                Some(Fault::RestWithoutItsTags) => has_come(head, next),
                _ => has_come(&line[..words_of_look(names_need)], next),
            };
            has_come.then(|| descriptor_of(line))
        };
        // A line that names a need is never gone by its head alone.
        let by_head = if names_need { None } else { item(false) };
        Seen { names_need, by_head, by_all: item(true) }
    }
}

/// An item as the host means it; every number has words of its own.
pub(crate) fn item(number: u8, needs: Needs) -> ItemDescriptor {
    let [first, count, blocks] = [0, 8, 16].map(|more| more + u32::from(number));
    let mut item = ItemDescriptor {
        first,
        count,
        blocks,
        edition: 0,
        reaches_host: false,
        needs: [Need::NONE; NEEDS],
    };
    for needed in needs.into_iter().flatten() {
        assert!(add_need(&mut item.needs, needed.need()), "as many as there are places");
    }
    item
}
