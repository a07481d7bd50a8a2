//! File systems that tests may break: an image mounted through a loop device, or one in memory.
//!
//! They need root, loop devices and the programs of the file system. Where these are not to be had a test says `SKIPPED` and
//! why, past the capture of its output, and `tests/run` shows it. Whatever was mounted is unmounted when it is dropped,
//! also by a panic.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Kinds of file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a small journal, so that a small image is enough.
    Ext4,
    /// Wants 300 MiB at least.
    Xfs,
}

/// Python's way to the call that takes a file system down without writing its journal (`FS_IOC_GOINGDOWN`, no log flush),
/// for a test has no `unsafe` and so no `ioctl`.
const GOING_DOWN: &str = "import fcntl, os, struct, sys
for line in sys.stdin:
    fcntl.ioctl(os.open(sys.argv[1], 0), 0x8004587d, struct.pack('I', 2))
    break
";

/// Runs a program; what it said when it failed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Says that a test cannot be done here.
pub fn skipped(test: &str, why: &str) {
    // Not `eprintln!`: that is captured, and nobody would see it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Gives what a test needs, or says that it is skipped.
pub fn or_skipped<T>(test: &str, needed: Result<T, String>) -> Option<T> {
    needed.map_err(|why| skipped(test, &why)).ok()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path is text")
}

/// A mounted file system.
pub struct Mounted {
    /// Holds the image and the place; goes last.
    folder: tempfile::TempDir,
    source: Source,
    mounted: bool,
}

enum Source {
    Image(PathBuf),
    Memory,
}

impl Mounted {
    /// A file system of `mib` MiB in a file, mounted.
    pub fn image(kind: Kind, mib: u64) -> Result<Self, String> {
        Self::image_in(&std::env::temp_dir(), kind, mib)
    }

    /// The same, with its file in a folder of choice.
    pub fn image_in(parent: &Path, kind: Kind, mib: u64) -> Result<Self, String> {
        root()?;
        if !Path::new("/dev/loop-control").exists() {
            return Err(String::from("there are no loop devices"));
        }
        let folder = tempfile::Builder::new().prefix("aob-disk-").tempdir_in(parent);
        let folder = folder.map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        match kind {
            Kind::Ext4 => run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", "size=4", text(&image)])?,
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", text(&image)])?,
        };
        let mut mounted = Self { folder, source: Source::Image(image), mounted: false };
        mounted.mount()?;
        Ok(mounted)
    }

    /// A file system of `mib` MiB in memory.
    pub fn memory(mib: u64) -> Result<Self, String> {
        root()?;
        let folder =
            tempfile::Builder::new().prefix("aob-disk-").tempdir().map_err(|error| error.to_string())?;
        let mut mounted = Self { folder, source: Source::Memory, mounted: false };
        std::fs::create_dir(mounted.at()).map_err(|error| error.to_string())?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", text(&mounted.at())])?;
        mounted.mounted = true;
        Ok(mounted)
    }

    /// Where it is mounted.
    pub fn at(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    /// A node's data directory in it.
    pub fn data(&self) -> PathBuf {
        self.at().join("data")
    }

    fn mount(&mut self) -> Result<(), String> {
        let Source::Image(image) = &self.source else { return Ok(()) };
        let at = self.at();
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        run("mount", &["-o", "loop", text(image), text(&at)])?;
        self.mounted = true;
        Ok(())
    }

    /// Mounts it with other options, as it is.
    pub fn remount(&self, options: &str) -> Result<String, String> {
        run("mount", &["-o", &format!("remount,{options}"), text(&self.at())])
    }

    /// Stops every write until it is thawed.
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["-f", text(&self.at())]).expect("it freezes");
        Frozen(self)
    }

    /// The number of its device, `major:minor`.
    pub fn device(&self) -> Result<String, String> {
        let found = run("findmnt", &["-n", "-o", "MAJ:MIN", "--mountpoint", text(&self.at())])?;
        Ok(found.trim().to_owned())
    }

    /// Makes a power cut ready, so that it comes at once when it is wanted.
    pub fn cutter(&self) -> Cutter {
        let mut program = Command::new("python3");
        program.args(["-c", GOING_DOWN, text(&self.at())]).stdin(Stdio::piped());
        Cutter(program.spawn().expect("python3 is installed"))
    }

    /// After a power cut: everything that used it must have ended. What was not on the device is gone.
    pub fn power_on(&mut self) {
        self.unmount().expect("nobody uses it any more");
        self.mount().expect("it is mounted again");
    }

    fn unmount(&mut self) -> Result<(), String> {
        // The last file of a process that was killed may be closed a moment after its end.
        let mut last = Ok(());
        for _ in 0..50 {
            last = run("umount", &[text(&self.at())]).map(drop);
            if last.is_ok() {
                self.mounted = false;
                return last;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        last
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = run("umount", &["-l", text(&self.at())]);
        }
    }
}

/// A frozen file system; thawed when it is dropped.
pub struct Frozen<'a>(&'a Mounted);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["-u", text(&self.0.at())]);
    }
}

/// A power cut that waits for its moment.
pub struct Cutter(std::process::Child);

impl Cutter {
    /// Now.
    pub fn cut(mut self) {
        let mut input = self.0.stdin.take().expect("piped");
        input.write_all(b"now\n").expect("it waits");
        drop(input);
        assert!(self.0.wait().expect("it ends").success(), "the power was not cut");
    }
}

fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(String::from("only root may mount")) }
}
