//! Many boxes, many kills, much load: what must stay flat, whole and the same.
//!
//! Each test has a short version that runs always and a long one that is asked for: `docs/endurance.md` has the
//! commands and the last figures.

mod boxes;
mod host;
mod kills;
mod load;
