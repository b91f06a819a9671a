//! The ranges that a thread has open, and what is told of one. No clock, no CUPTI, no other thread.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::inject::nvtx::abi::Payload;
use crate::schema::ranges::MAX_NAME_BYTES;

/// Ranges of a thread beyond these are counted, not kept.
const MAX_OPEN: usize = 100_000;
/// Their names take no more than this.
const MAX_NAMES: usize = 64 << 20;
/// Distinct paths that a thread remembers.
const MAX_PATHS: usize = 4_096;

/// What stands for a longer path's beginning.
const CUT: &str = "…";

/// How a range was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    PushPop,
    StartEnd,
    Mark,
}

impl Kind {
    /// Its word in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::PushPop => "push_pop",
            Kind::StartEnd => "start_end",
            Kind::Mark => "mark",
        }
    }
}

/// A moment: the clock, and CUPTI's newest correlation id where it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) ns: i64,
    pub(crate) mark: Option<u32>,
}

/// What a program says of a range beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Details {
    /// Handle; 0 is the default domain.
    pub(crate) domain: usize,
    pub(crate) category: u32,
    pub(crate) payload: Payload,
}

/// The name of a range behind those that it lies in, joined by `/`: a part of a text that several may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    names: Arc<str>,
    from: usize,
    name_at: usize,
    end: usize,
    /// Its beginning is left out.
    is_cut: bool,
}

impl Path {
    pub(crate) fn text(&self) -> Cow<'_, str> {
        let text = self.names.get(self.from..self.end).unwrap_or_default();
        if self.is_cut {
            Cow::Owned(format!("{CUT}{text}"))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The range's own name.
    pub(crate) fn name(&self) -> &str {
        self.names.get(self.name_at..self.end).unwrap_or_default()
    }
}

/// Where the shown part of a path begins, so that it is no longer than a name may be.
fn shown_from(names: &str, name_at: usize, end: usize) -> usize {
    let mut from = end.saturating_sub(MAX_NAME_BYTES);
    while !names.is_char_boundary(from) {
        from += 1;
    }
    from.min(name_at)
}

/// A range as it goes to the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) thread_id: u32,
    pub(crate) kind: Kind,
    pub(crate) path: Path,
    /// Ranges of its thread around it.
    pub(crate) depth: u32,
    pub(crate) details: Details,
    pub(crate) start: Moment,
    /// None: still open.
    pub(crate) end_ns: Option<i64>,
    /// Of one that is still open: the correlation id up to which it is known to have been.
    pub(crate) end_mark: Option<u32>,
    /// Its end, or when it was seen to be open.
    pub(crate) seen_ns: i64,
    /// It was open as recording stopped once before, and told then.
    pub(crate) is_again: bool,
}

/// A range that is open.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    name_at: usize,
    name_end: usize,
    level: u32,
    pub(crate) details: Details,
    pub(crate) start: Moment,
}

/// Open ranges of one thread, all domains, the innermost last.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    /// Names joined by `/`: up to the end of a range's name, its path.
    names: String,
    frames: Vec<Frame>,
    unkept: u32,
    /// How many, from the outermost, were told as open.
    told: usize,
    paths: HashSet<Arc<str>>,
}

/// What was open on a thread: the innermost ranges, and the names that their paths are made of.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    names: String,
    frames: Vec<Frame>,
    /// Ranges around these, and where in the thread's names these begin.
    below: usize,
    skipped: usize,
    told: usize,
}

/// What a snapshot needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    frames: usize,
    bytes: usize,
}

/// One range of a snapshot.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) index: usize,
    pub(crate) path: Path,
    pub(crate) details: Details,
    pub(crate) start: Moment,
    pub(crate) is_again: bool,
}

impl Snapshot {
    /// One with room, and with some more, since the thread may go on meanwhile.
    pub(crate) fn with(room: Room) -> Snapshot {
        Snapshot {
            names: String::with_capacity(2 * room.bytes),
            frames: Vec::with_capacity(2 * room.frames),
            ..Snapshot::default()
        }
    }

    /// How many ranges it has not.
    pub(crate) fn left_out(&self) -> usize {
        self.below
    }

    pub(crate) fn ranges(self) -> impl Iterator<Item = Seen> {
        let names: Arc<str> = Arc::from(self.names);
        self.frames.into_iter().enumerate().map(move |(number, frame)| {
            let (name_at, end) = (frame.name_at - self.skipped, frame.name_end - self.skipped);
            let from = shown_from(&names, name_at, end);
            let index = self.below + number;
            Seen {
                index,
                path: Path {
                    names: Arc::clone(&names),
                    from,
                    name_at,
                    end,
                    is_cut: from + self.skipped > 0,
                },
                details: frame.details,
                start: frame.start,
                is_again: index < self.told,
            }
        })
    }
}

/// What was popped.
#[derive(Debug)]
pub(crate) struct Popped {
    /// Its place among those of its domain, from 0.
    pub(crate) level: u32,
    /// The range, and its path if that was asked for; none of one that was not kept.
    pub(crate) range: Option<(Frame, Option<Path>)>,
    /// Where it was among the open ones.
    pub(crate) index: usize,
    /// It was told as open before.
    pub(crate) is_again: bool,
}

impl Stack {
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Opens a range whose name `write` appends. Its level among those of its domain, and whether it was kept.
    pub(crate) fn push(&mut self, details: Details, start: Moment, write: impl FnOnce(&mut String)) -> (u32, bool) {
        let of_domain = |frame: &&Frame| frame.details.domain == details.domain;
        let level = self
            .frames
            .iter()
            .rev()
            .find(of_domain)
            .map_or(0, |frame| frame.level + 1);
        if self.unkept > 0 || self.frames.len() >= MAX_OPEN || self.names.len() >= MAX_NAMES {
            self.unkept += 1;
            return (level + self.unkept - 1, false);
        }
        let name_at = self.begin_name();
        write(&mut self.names);
        self.frames.push(Frame {
            name_at,
            name_end: self.names.len(),
            level,
            details,
            start,
        });
        (level, true)
    }

    /// Closes the innermost range of a domain. None: there is none.
    pub(crate) fn pop(&mut self, domain: usize, with_path: bool) -> Option<Popped> {
        if self.unkept > 0 {
            self.unkept -= 1;
            let below = self.frames.iter().rev().find(|frame| frame.details.domain == domain);
            return Some(Popped {
                level: below.map_or(0, |frame| frame.level + 1) + self.unkept,
                range: None,
                index: self.frames.len(),
                is_again: false,
            });
        }
        let index = self.frames.iter().rposition(|frame| frame.details.domain == domain)?;
        let path = with_path.then(|| self.path(index)).flatten();
        let frame = self.frames.remove(index);
        self.forget_name(&frame, index);
        let is_again = index < self.told;
        self.told -= usize::from(is_again);
        Some(Popped {
            level: frame.level,
            range: Some((frame, path)),
            index,
            is_again,
        })
    }

    /// Copies the innermost ranges, `most` of them, which are then told as open. Nothing is allocated: where the copy has
    /// too little room, for that many ranges and bytes, nothing is done.
    pub(crate) fn tell_open(&mut self, copy: &mut Snapshot, most: usize) -> Result<(), Room> {
        let below = self.frames.len().saturating_sub(most);
        let frames = self.frames.get(below..).unwrap_or_default();
        let skipped = frames
            .first()
            .map_or(0, |frame| shown_from(&self.names, frame.name_at, frame.name_end));
        let names = self.names.get(skipped..).unwrap_or_default();
        if copy.frames.capacity() < frames.len() || copy.names.capacity() < names.len() {
            return Err(Room {
                frames: frames.len(),
                bytes: names.len(),
            });
        }
        copy.frames.extend_from_slice(frames);
        copy.names.push_str(names);
        (copy.below, copy.skipped, copy.told) = (below, skipped, self.told);
        self.told = self.frames.len();
        Ok(())
    }

    /// Path of an open range.
    pub(crate) fn path(&mut self, index: usize) -> Option<Path> {
        let frame = self.frames.get(index)?;
        let (name_at, end) = (frame.name_at, frame.name_end);
        Some(self.intern(name_at, end))
    }

    /// Path of the innermost range.
    pub(crate) fn innermost(&mut self) -> Option<Arc<str>> {
        let last = self.frames.len().checked_sub(1)?;
        self.path(last).map(|path| Arc::from(path.text()))
    }

    /// Name of an open range.
    pub(crate) fn name(&self, index: usize) -> Option<&str> {
        let frame = self.frames.get(index)?;
        self.names.get(frame.name_at..frame.name_end)
    }

    /// Path of a name that `write` appends, within what is open: a mark, or a range that any thread may end.
    pub(crate) fn path_of(&mut self, write: impl FnOnce(&mut String)) -> Path {
        let before = self.names.len();
        let name_at = self.begin_name();
        write(&mut self.names);
        let path = self.intern(name_at, self.names.len());
        self.names.truncate(before);
        path
    }

    fn begin_name(&mut self) -> usize {
        if !self.frames.is_empty() {
            self.names.push('/');
        }
        self.names.len()
    }

    fn forget_name(&mut self, frame: &Frame, index: usize) {
        let Some(after) = self.frames.get(index) else {
            let end = index.checked_sub(1).and_then(|below| self.frames.get(below));
            self.names.truncate(end.map_or(0, |below| below.name_end));
            return;
        };
        // One of another domain was pushed over it: that one moves down.
        let gone = frame.name_at..after.name_at;
        let length = gone.len();
        self.names.replace_range(gone, "");
        for above in self.frames.iter_mut().skip(index) {
            above.name_at -= length;
            above.name_end -= length;
        }
    }

    /// The path in memory that all ranges of the same path share.
    fn intern(&mut self, name_at: usize, end: usize) -> Path {
        let from = shown_from(&self.names, name_at, end);
        let shown = self.names.get(from..end).unwrap_or_default();
        let is_cut = from > 0;
        let names = match self.paths.get(shown) {
            Some(known) => Arc::clone(known),
            // A deep stack's are long, and hardly the same again.
            None if is_cut => Arc::from(shown),
            None => remember(&mut self.paths, Arc::from(shown)),
        };
        Path {
            from: 0,
            name_at: name_at - from,
            end: names.len(),
            names,
            is_cut,
        }
    }
}

fn remember(paths: &mut HashSet<Arc<str>>, text: Arc<str>) -> Arc<str> {
    if paths.len() >= MAX_PATHS {
        paths.clear();
    }
    paths.insert(Arc::clone(&text));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment { ns: 5, mark: None };

    fn details(domain: usize) -> Details {
        Details {
            domain,
            ..Details::default()
        }
    }

    fn push(stack: &mut Stack, domain: usize, name: &str) -> u32 {
        stack.push(details(domain), START, |names| names.push_str(name)).0
    }

    fn pop(stack: &mut Stack, domain: usize) -> Option<(u32, String, String)> {
        let popped = stack.pop(domain, true)?;
        let path = popped.range.unwrap().1.unwrap();
        Some((popped.level, path.text().into_owned(), path.name().to_owned()))
    }

    #[test]
    fn levels_and_paths() {
        let mut stack = Stack::default();
        assert_eq!([0, 0, 0].map(|domain| push(&mut stack, domain, "a")), [0, 1, 2]);
        assert_eq!(pop(&mut stack, 0), Some((2, "a/a/a".to_owned(), "a".to_owned())));
        assert_eq!(stack.path_of(|names| names.push('m')).text(), "a/a/m");
        assert_eq!(pop(&mut stack, 0).unwrap().1, "a/a");
        assert_eq!(pop(&mut stack, 0).unwrap().1, "a");
        assert_eq!(pop(&mut stack, 0), None, "more pops than pushes");
        assert_eq!(stack.path_of(|names| names.push('m')).text(), "m");
    }

    #[test]
    fn domains_count_for_themselves() {
        let mut stack = Stack::default();
        assert_eq!(push(&mut stack, 0, "outer"), 0);
        assert_eq!(push(&mut stack, 7, "other"), 0);
        assert_eq!(push(&mut stack, 0, "inner"), 1);
        assert_eq!(
            pop(&mut stack, 7).unwrap(),
            (0, "outer/other".to_owned(), "other".to_owned())
        );
        assert_eq!(pop(&mut stack, 7), None);
        assert_eq!(pop(&mut stack, 0).unwrap().1, "outer/inner");
        push(&mut stack, 7, "late");
        assert_eq!(pop(&mut stack, 0).unwrap().1, "outer");
        assert_eq!(pop(&mut stack, 7).unwrap().1, "late");
        assert!(stack.names.is_empty());
    }

    #[test]
    fn a_deep_path_keeps_its_end() {
        let mut stack = Stack::default();
        for number in 0..10_000 {
            push(&mut stack, 0, &format!("é{number}"));
        }
        let (level, path, name) = pop(&mut stack, 0).unwrap();
        assert_eq!((level, name.as_str()), (9_999, "é9999"));
        assert!(path.starts_with(CUT) && path.ends_with("/é9998/é9999"), "{path}");
        assert!(path.len() <= MAX_NAME_BYTES + CUT.len());
        let long = "x".repeat(MAX_NAME_BYTES);
        push(&mut stack, 0, &long);
        assert_eq!(pop(&mut stack, 0).unwrap().2, long);
    }

    #[test]
    fn what_is_too_much_is_counted_and_not_kept() {
        let mut stack = Stack::default();
        for _ in 0..MAX_OPEN {
            push(&mut stack, 0, "");
        }
        assert_eq!(stack.push(details(0), START, |_| ()), (100_000, false));
        assert_eq!(stack.push(details(0), START, |_| ()), (100_001, false));
        for level in [100_001, 100_000] {
            let popped = stack.pop(0, true).unwrap();
            assert_eq!((popped.level, popped.range.is_none()), (level, true));
        }
        assert_eq!(stack.pop(0, true).unwrap().level, 99_999);
    }

    #[test]
    fn equal_paths_share_their_memory() {
        let mut stack = Stack::default();
        let mut path = |name: &str| {
            push(&mut stack, 0, name);
            stack.pop(0, true).unwrap().range.unwrap().1.unwrap().names
        };
        assert!(Arc::ptr_eq(&path("a"), &path("a")));
        let first = path("first");
        (0..MAX_PATHS).for_each(|number| drop(path(&number.to_string())));
        assert!(!Arc::ptr_eq(&path("first"), &first), "forgotten, not without bound");
    }

    proptest! {
        #[test]
        fn paths_are_what_a_list_of_names_gives(steps in prop::collection::vec((0..3_usize, prop::option::of("[a-c]{0,3}")), 0..60)) {
            let (mut stack, mut naive) = (Stack::default(), Vec::<(usize, String)>::new());
            for (domain, name) in steps {
                match name {
                    Some(name) => {
                        let level = naive.iter().filter(|(other, _)| *other == domain).count();
                        prop_assert_eq!(push(&mut stack, domain, &name) as usize, level);
                        naive.push((domain, name));
                    }
                    None => {
                        let index = naive.iter().rposition(|(other, _)| *other == domain);
                        let expected = index.map(|index| {
                            let path: Vec<&str> = naive[..=index].iter().map(|(_, name)| name.as_str()).collect();
                            let level = naive[..index].iter().filter(|(other, _)| *other == domain).count();
                            (u32::try_from(level).unwrap(), path.join("/"), naive[index].1.clone())
                        });
                        index.map(|index| naive.remove(index));
                        prop_assert_eq!(pop(&mut stack, domain), expected);
                    }
                }
            }
        }
    }
}
