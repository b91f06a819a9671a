//! Names and paths of ranges, as long as the table `nvtx_ranges` promises.

const MAX_BYTES: usize = 4096;

/// Cuts a name that is too long.
pub(super) fn cut(name: &mut String) {
    name.truncate(boundary(name, MAX_BYTES));
}

/// `outer/name`; of one that is too long, `…` and the end.
pub(super) fn joined(outer: Option<&str>, name: &str) -> String {
    let Some(outer) = outer else {
        return name.to_owned();
    };
    let path = format!("{outer}/{name}");
    if path.len() <= MAX_BYTES {
        return path;
    }
    const CUT: &str = "…";
    let end = boundary(&path, path.len() - (MAX_BYTES - CUT.len()) + 3);
    format!("{CUT}{}", &path[end..])
}

/// The last place up to `most` where a character ends.
fn boundary(text: &str, most: usize) -> usize {
    let mut place = most.min(text.len());
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}
