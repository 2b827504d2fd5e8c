//! The initial root file system of the Linux guests: busybox and a small `/init`.

use super::cpio::Archive;

/// What `/init` prints when user space runs: the end of the boot, for tests and benches.
pub const READY: &str = "Brolga guest ready";

/// The prompt of the guest's shell. No command that tests type contains it.
pub const PROMPT: &str = "guest# ";

/// The archive for a static busybox, and for the benchmark's workloads if they are wanted.
pub fn build(busybox: &[u8], workloads: Option<&[u8]>) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        archive.directory(directory, 0o755);
    }
    // The kernel opens the console for /init before anything mounts devtmpfs.
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("bin/busybox", 0o755, busybox);
    archive.symlink("bin/sh", "busybox");
    if let Some(workloads) = workloads {
        archive.file("bin/bench", 0o755, workloads);
    }
    archive.file("etc/profile", 0o644, profile().as_bytes());
    archive.file("init", 0o755, init().as_bytes());
    archive.finish()
}

/// The shell gets a session and the console as its controlling terminal, for job control.
/// Kernel messages stay in the ring buffer from then on, so that they do not mix with what
/// commands print.
fn init() -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=vt100
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
hostname brolga
dmesg -n 1
echo '{READY}'
setsid cttyhack sh -l
poweroff -f
"
    )
}

fn profile() -> String {
    format!("cd /root\nexport PS1='{PROMPT}'\n")
}
