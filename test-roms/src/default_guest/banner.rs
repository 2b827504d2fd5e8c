//! The first thing a user sees.

use super::console::{BOLD, CYAN, DIM, PLAIN, RED};

/// Where the captions start.
const CAPTION: usize = 36;

/// A brolga, grey with a red crown, as it dances; and what this is.
pub(super) fn banner() -> String {
    let title = format!("{BOLD}b r o l g a{PLAIN}");
    let purpose = [
        format!("{DIM}a PC from its reset vector,{PLAIN}"),
        format!("{DIM}through three modes, to a prompt{PLAIN}"),
    ];
    let [from, to] = &purpose;
    let crane = [
        (r"                   __.-'", ""),
        (r"     \\.          / o'", ""),
        (r"      \\\\       / /        .//", ""),
        (r"       \\\\\.___/ (__   .////'", title.as_str()),
        (r"        `\\\\          ///'", ""),
        (r"           `-._      .-'", from),
        (r"               `-.,-'\", to),
        (r"                 /    \_", ""),
        (r"                /      /", ""),
        (r"              _/_", ""),
    ];
    let mut text = String::from("\n");
    for (bird, caption) in crane {
        let gap = CAPTION - bird.len();
        let bird = bird.replace('o', &format!("{RED}o{CYAN}"));
        let line = format!("{CYAN}{bird}{PLAIN}{:gap$}{caption}", "");
        text += line.trim_end();
        text += "\n";
    }
    text + "\n"
}
