//! Where the cgroups are that this process is in, from the kernel's two tables.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, refused, v2};

/// One place for each thing that is read or written, v1 or v2.
#[derive(Debug)]
pub(super) enum Layout {
    /// The directories of the controllers `memory`, `pids`, `cpuacct`.
    V1([PathBuf; 3]),
    V2(PathBuf),
}

impl Layout {
    pub(super) fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::V1(dirs) => dirs.iter().map(PathBuf::as_path).collect(),
            Self::V2(dir) => vec![dir],
        }
    }

    pub(super) fn join(&self, name: &str) -> Self {
        match self {
            Self::V1(dirs) => Self::V1(dirs.each_ref().map(|dir| dir.join(name))),
            Self::V2(dir) => Self::V2(dir.join(name)),
        }
    }

    /// That of this process; for v2 without the leaf that a launcher before this one moved us to.
    pub(super) fn own() -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).map_err(refused(Path::new(path)));
        Self::find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
    }

    fn find(mountinfo: &str, cgroup: &str) -> Result<Self, CgroupError> {
        let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
        let v1 = |controller: &'static str| {
            let mount = mounts.iter().find(|mount| mount.kind == "cgroup" && mount.has(controller))?;
            mount.dir(path_of(cgroup, |controllers| controllers.split(',').any(|one| one == controller))?)
        };
        if let (Some(memory), Some(pids), Some(cpuacct)) = (v1("memory"), v1("pids"), v1("cpuacct")) {
            return Ok(Self::V1([memory, pids, cpuacct]));
        }
        let absent = |controller, at| CgroupError::Absent { controller, at };
        let dir = v2_dir(&mounts, cgroup).ok_or_else(|| absent("memory", String::new()))?;
        let there = fs::read_to_string(dir.join("cgroup.controllers")).map_err(refused(&dir))?;
        for controller in v2::CONTROLLERS {
            if !there.split_whitespace().any(|one| one == controller) {
                return Err(absent(controller, format!(" in {}", dir.display())));
            }
        }
        Ok(Self::V2(dir))
    }
}

fn v2_dir(mounts: &[Mount<'_>], cgroup: &str) -> Option<PathBuf> {
    let mount = mounts.iter().find(|mount| mount.kind == "cgroup2")?;
    let path = path_of(cgroup, str::is_empty)?;
    let above = path.strip_suffix(v2::LEAF).filter(|above| above.ends_with('/'));
    mount.dir(above.unwrap_or(path))
}

/// The directories of the groups of memory and of processes that this process is in, each with all above it.
pub(in crate::sandbox) fn chains(mountinfo: &str, cgroup: &str) -> [Vec<PathBuf>; 2] {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    ["memory", "pids"].map(|controller| {
        let v1 = mounts.iter().find(|mount| mount.kind == "cgroup" && mount.has(controller));
        let v2 = || mounts.iter().find(|mount| mount.kind == "cgroup2");
        let (mount, path) = match v1 {
            Some(mount) => (
                Some(mount),
                path_of(cgroup, |controllers| controllers.split(',').any(|one| one == controller)),
            ),
            None => (v2(), path_of(cgroup, str::is_empty)),
        };
        let Some((mount, dir)) = mount.and_then(|mount| Some((mount, mount.dir(path?)?))) else {
            return Vec::new();
        };
        dir.ancestors().take_while(|dir| dir.starts_with(mount.point)).map(Path::to_owned).collect()
    })
}

/// The path behind the first line of `/proc/self/cgroup` whose controllers fit.
pub(super) fn path_of(cgroup: &str, fits: impl Fn(&str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        fits(controllers).then(|| parts.next())?
    })
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, file_system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        Some(Self {
            root: place.next()?,
            point: place.next()?,
            kind: file_system.next()?,
            options: file_system.nth(1)?,
        })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|one| one == controller)
    }

    /// Where the group of this path is seen.
    fn dir(&self, path: &str) -> Option<PathBuf> {
        let below = if self.root == "/" { path } else { path.strip_prefix(self.root)? };
        // A group outside what is mounted, as "/..", cannot be reached.
        (!below.contains("/..")).then(|| Path::new(self.point).join(below.trim_matches('/')))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::sandbox::cgroup::sweep;
    use rstest::rstest;

    /// A real group of version 2, whatever controllers it has; it goes with what is in it.
    pub(in crate::sandbox) struct Group(PathBuf);

    impl Group {
        /// `None`, and said: this user may make none here.
        pub(in crate::sandbox) fn new() -> Option<Self> {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mounts: Vec<_> = mountinfo.lines().filter_map(Mount::parse).collect();
            let own = v2_dir(&mounts, &fs::read_to_string("/proc/self/cgroup").unwrap());
            let name =
                format!("evalmill-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let Some(dir) = own.map(|dir| dir.join(name)) else {
                eprintln!("not run: no cgroups of version 2 are mounted");
                return None;
            };
            match fs::create_dir(&dir) {
                Ok(()) => Some(Self(dir)),
                Err(error) => {
                    eprintln!("not run: {}: {error}; it takes root, or a delegated group", dir.display());
                    None
                }
            }
        }

        pub(in crate::sandbox) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while !sweep::remove(&self.0) && std::time::Instant::now() < until {
                std::thread::yield_now();
            }
        }
    }

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        39 31 0:36 /docker/ab /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn each_controller_has_its_own_place() {
        let cgroup = "8:pids:/docker/ab/x\n4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n0::/u\n";
        let Ok(Layout::V1(dirs)) = Layout::find(HYBRID, cgroup) else { panic!("not v1") };
        let expected = ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/cpu,cpuacct"]
            .map(PathBuf::from);
        assert_eq!(dirs, expected);
    }

    #[test]
    fn groups_and_those_above_them() {
        let cgroup = "8:pids:/docker/ab/x\n4:memory:/a/b\n0::/u\n";
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        let memory =
            paths(&["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]);
        let pids = paths(&["/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/pids"]);
        assert_eq!(chains(HYBRID, cgroup), [memory, pids]);
        let unified = chains("1 2 0:3 / /c rw - cgroup2 cgroup2 rw\n", "0::/u\n");
        assert_eq!(unified, [paths(&["/c/u", "/c"]), paths(&["/c/u", "/c"])]);
        assert_eq!(chains("", "0::/u\n"), [Vec::<PathBuf>::new(), Vec::new()]);
    }

    #[rstest]
    #[case::none("", "0::/\n", "memory")]
    #[case::outside("1 2 0:3 /a /c rw - cgroup2 cgroup2 rw\n", "0::/b\n", "memory")]
    #[case::above("1 2 0:3 / /c rw - cgroup2 cgroup2 rw\n", "0::/../b\n", "memory")]
    fn what_is_not_there_is_named(#[case] mountinfo: &str, #[case] cgroup: &str, #[case] controller: &str) {
        let error = Layout::find(mountinfo, cgroup).unwrap_err().to_string();
        assert!(error.contains(controller), "{error}");
    }

    #[test]
    fn unified_without_controllers_is_not_enough() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "memory hugetlb\n").unwrap();
        let mountinfo = format!("1 2 0:3 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
        assert!(Layout::find(&mountinfo, "0::/\n").unwrap_err().to_string().contains("\"pids\""));
        fs::write(dir.path().join("cgroup.controllers"), "memory pids cpu\n").unwrap();
        assert!(matches!(Layout::find(&mountinfo, "0::/\n"), Ok(Layout::V2(_))));
    }

    #[rstest]
    #[case::root("/", "/sys/fs/cgroup")]
    #[case::leaf_of_the_root("/evalmill-own", "/sys/fs/cgroup")]
    #[case::leaf("/a.slice/b.scope/evalmill-own", "/sys/fs/cgroup/a.slice/b.scope")]
    #[case::no_leaf("/a.slice/my-evalmill-own", "/sys/fs/cgroup/a.slice/my-evalmill-own")]
    fn the_leaf_is_not_where_groups_are_made(#[case] path: &str, #[case] expected: &str) {
        let line = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let mounts = [Mount::parse(line).unwrap()];
        assert_eq!(v2_dir(&mounts, &format!("0::{path}\n")).unwrap(), Path::new(expected));
    }
}
