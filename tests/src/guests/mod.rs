//! Real guests: Debian's own kernels and busybox, fetched, checked and cached.

mod apt;
mod cpio;
pub mod initramfs;
mod manifest;
pub mod modules;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::suite::Skip;
use apt::{Apt, Package, write_whole};
use manifest::{Manifest, Source};

/// A Linux guest that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// Its name, in Debian's words.
    pub name: &'static str,
    /// What `uname -m` says in it.
    pub machine: &'static str,
    metapackage: &'static str,
    busybox: Busybox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Busybox {
    package: &'static str,
    file: &'static str,
}

impl Busybox {
    /// Its Debian architecture.
    fn architecture(self) -> &'static str {
        self.package.rsplit(':').next().unwrap_or(self.package)
    }
}

const BUSYBOX_AMD64: Busybox = Busybox { package: "busybox-static:amd64", file: "busybox-amd64" };
const BUSYBOX_I386: Busybox = Busybox { package: "busybox-static:i386", file: "busybox-i386" };

/// Debian's 64-bit kernel.
pub const AMD64: Flavour = Flavour {
    name: "amd64",
    machine: "x86_64",
    metapackage: "linux-image-amd64:amd64",
    busybox: BUSYBOX_AMD64,
};

/// Debian's 32-bit kernel without PAE.
pub const I686: Flavour = Flavour {
    name: "686",
    machine: "i686",
    metapackage: "linux-image-686:i386",
    busybox: BUSYBOX_I386,
};

/// Debian's 32-bit kernel with PAE.
pub const I686_PAE: Flavour = Flavour {
    name: "686-pae",
    machine: "i686",
    metapackage: "linux-image-686-pae:i386",
    busybox: BUSYBOX_I386,
};

/// All guests.
pub const ALL: [Flavour; 3] = [AMD64, I686, I686_PAE];

/// Those with modules.
const WITH_MODULES: [Flavour; 2] = [AMD64, I686];

/// Says in a test's skip reason why guests could not be fetched; `cargo xtask test` sets it.
pub const REASON_VARIABLE: &str = "BROLGA_GUESTS_REASON";

/// A guest ready to boot.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Which one.
    pub flavour: Flavour,
    /// The kernel, as Debian ships it.
    pub kernel: PathBuf,
    /// Our initial root with Debian's busybox.
    pub initrd: PathBuf,
}

impl Flavour {
    /// The cached guest, or [`Skip`] where there is none. A cached file that is not what was
    /// fetched is an error.
    pub fn cached(self) -> Result<Guest> {
        let cache = Cache::new();
        let manifest = cache.manifest()?;
        let kernel = self.kernel_file();
        if !manifest.lists(&kernel) || !manifest.lists(self.busybox.file) {
            let reason = std::env::var(REASON_VARIABLE)
                .unwrap_or_else(|_| "run `cargo xtask guests`".to_owned());
            return Err(Skip(format!("no {} guest in the cache: {reason}", self.name)).into());
        }
        manifest.verify(&cache.directory, &kernel)?;
        manifest.verify(&cache.directory, self.busybox.file)?;
        let initrd = cache.refresh_initramfs(self.busybox, None)?;
        Ok(Guest { flavour: self, kernel: cache.directory.join(kernel), initrd })
    }

    fn is_complete(self, manifest: &Manifest) -> bool {
        self.has_kernel(manifest) && manifest.lists(self.busybox.file)
    }

    fn has_kernel(self, manifest: &Manifest) -> bool {
        let has_modules = || manifest.lists(&self.modules_file());
        manifest.lists(&self.kernel_file()) && (!WITH_MODULES.contains(&self) || has_modules())
    }

    fn kernel_file(self) -> String {
        format!("vmlinuz-{}", self.name)
    }
}

impl Guest {
    /// The same guest with the benchmark's workloads as `/bin/bench`, or [`Skip`].
    pub fn with_workloads(self) -> Result<Self> {
        let program = self.flavour.workloads()?;
        let initrd = Cache::new().refresh_initramfs(self.flavour.busybox, Some(&program))?;
        Ok(Self { initrd, ..self })
    }
}

/// The directory that keeps guests between runs: `$BROLGA_GUESTS`, or `target/guests`.
struct Cache {
    directory: PathBuf,
}

impl Cache {
    fn new() -> Self {
        let directory = std::env::var_os("BROLGA_GUESTS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("guests"),
            PathBuf::from,
        );
        Self { directory }
    }

    fn manifest(&self) -> Result<Manifest> {
        Manifest::read(&self.directory)
    }

    /// The initramfs follows from busybox, this crate and the workloads, so it is made again
    /// rather than recorded: a cache from an older checkout then never serves a stale `/init`.
    fn refresh_initramfs(&self, busybox: Busybox, workloads: Option<&Path>) -> Result<PathBuf> {
        let workloads_bytes = workloads.map(fs::read).transpose()?;
        let busybox_bytes = fs::read(self.directory.join(busybox.file))?;
        let archive = initramfs::build(&busybox_bytes, workloads_bytes.as_deref());
        let contents = workloads.map_or("", |_| "bench-");
        let path = self.directory.join(format!("initramfs-{contents}{}.cpio", busybox.file));
        if fs::read(&path).ok().as_deref() != Some(&archive) {
            write_whole(&path, &archive)?;
        }
        Ok(path)
    }
}

/// Makes sure that every guest is cached and intact; `refresh` asks the mirror for newer
/// packages even then. Returns a table of the cache.
pub fn fetch(refresh: bool) -> Result<String> {
    let cache = Cache::new();
    let mut manifest = cache.manifest()?;
    manifest.forget_damaged(&cache.directory);
    let complete = ALL.iter().all(|f| f.is_complete(&manifest));
    if refresh || !complete {
        let started = Instant::now();
        fetch_missing(&cache, &mut manifest, refresh)?;
        eprintln!("guests fetched in {:.1} s", started.elapsed().as_secs_f32());
    }
    for busybox in [BUSYBOX_AMD64, BUSYBOX_I386] {
        cache.refresh_initramfs(busybox, None)?;
    }
    Ok(manifest.table(&cache.directory))
}

fn fetch_missing(cache: &Cache, manifest: &mut Manifest, refresh: bool) -> Result<()> {
    let apt = Apt::new(&cache.directory.join("apt"))?;
    eprintln!("reading the package indexes of this host's Debian mirror ...");
    apt.update()?;
    for flavour in ALL {
        if refresh || !flavour.has_kernel(manifest) {
            // Modules are those of their kernel, to the build: both are of one package.
            let package = download(&apt, &apt.resolve(flavour.metapackage)?)?;
            let is_kernel = |path: &str| path.starts_with("boot/vmlinuz-");
            let kernel = package.extract(is_kernel)?;
            keep(cache, manifest, &package, &flavour.kernel_file(), &kernel)?;
            if WITH_MODULES.contains(&flavour) {
                let modules = modules::archive(&package)?;
                keep(cache, manifest, &package, &flavour.modules_file(), &modules)?;
            }
        }
    }
    for Busybox { package, file } in [BUSYBOX_AMD64, BUSYBOX_I386] {
        if refresh || !manifest.lists(file) {
            let is_busybox = |path: &str| path.ends_with("bin/busybox");
            let package = download(&apt, package)?;
            keep(cache, manifest, &package, file, &package.extract(is_busybox)?)?;
        }
    }
    apt.clean()
}

fn download(apt: &Apt, package: &str) -> Result<Package> {
    eprintln!("fetching {package} ...");
    apt.download(package)
}

/// Puts a file into the cache.
fn keep(
    cache: &Cache,
    manifest: &mut Manifest,
    package: &Package,
    file: &str,
    content: &[u8],
) -> Result<()> {
    write_whole(&cache.directory.join(file), content)?;
    let source = Source {
        package: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
    };
    manifest.record(file, source, content);
    manifest.write(&cache.directory)
}
