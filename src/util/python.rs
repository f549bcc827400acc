//! Python text that programs can be given along.

use thiserror::Error;

/// Limits the memory of the process that runs it; the limit is an expression in bytes.
const MEM_LIMIT: &str =
    concat!(include_str!("limit_memory.py"), "\n\n_limit_memory(MEM_LIMIT)\ndel _limit_memory\n");
/// Where the limit stands in it.
const PLACE: &str = "MEM_LIMIT";

/// The module `safeguard`.
const SAFEGUARD: &str = concat!(include_str!("safeguard.py"), "\n\n", include_str!("limit_memory.py"));

/// There is no such module.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no module {0:?} to be had here; there is: safeguard")]
pub struct UnknownModule(String);

/// Python code that limits the memory of the process that runs it to `mem_limit` bytes, followed by
/// `trailing`; empty where there is no limit.
///
/// `mem_limit` is a Python expression, as `"512 * 1024 * 1024"`, and goes into the code as it is: never
/// take it from anybody who may not write code. Zero is no limit. A hard limit that is lower stays.
/// It has to stand behind `from __future__` lines. The limits of the sandbox
/// (`limits.memory_mb`) need no cooperation of the program.
#[must_use]
pub fn get_mem_limit_code(mem_limit: Option<&str>, trailing: &str) -> String {
    mem_limit.map_or_else(String::new, |limit| MEM_LIMIT.replace(PLACE, limit) + trailing)
}

/// The line that imports a module, the call that does what it is for, and its source, to be written
/// beside the program as `<name>.py`.
///
/// There is `safeguard`: `safeguard.reliability_guard(maximum_memory_bytes=None)` makes calls fail, in
/// its own process, that remove or rename files, change owners and modes, start or end processes. It is
/// no sandbox: it is there against accidents, and a program that wants to gets around it.
///
/// # Errors
/// There is no such module.
pub fn get_module_and_call(
    module_name: &str,
) -> Result<(&'static str, &'static str, &'static str), UnknownModule> {
    match module_name {
        "safeguard" => Ok(("import safeguard", "safeguard.reliability_guard()", SAFEGUARD)),
        other => Err(UnknownModule(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_in_the_code() {
        assert_eq!(get_mem_limit_code(None, "\n"), "");
        let code = get_mem_limit_code(Some("4 * 1024"), "\n# end");
        assert!(code.contains("(4 * 1024)") && code.ends_with("\n# end") && !code.contains(PLACE), "{code}");
        assert_eq!(MEM_LIMIT.matches(PLACE).count(), 1);
    }

    #[test]
    fn modules() {
        let (import, call, source) = get_module_and_call("safeguard").unwrap();
        assert_eq!((import, call), ("import safeguard", "safeguard.reliability_guard()"));
        assert!(source.contains("def reliability_guard(maximum_memory_bytes=None)"));
        let error = get_module_and_call("os").unwrap_err().to_string();
        assert!(error.contains("\"os\"") && error.contains("safeguard"), "{error}");
    }
}
