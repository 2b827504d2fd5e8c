//! Kernel modules for a guest: the x86 implementations of cryptography, and what they depend on. The
//! kernel tests each when it is loaded.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::apt::{Package, write_whole};
use super::cpio::Archive;
use super::{Cache, Flavour, Guest, REASON_VARIABLE};
use crate::suite::Skip;

/// Where the modules are in the guest, and the file that names them in the order to load them.
pub const DIRECTORY: &str = "lib/modules";
/// See [`DIRECTORY`].
pub const ORDER: &str = "order";

/// Portable implementations: kernels without ones for x86 have these as modules.
const GENERIC: [&str; 5] =
    ["chacha_generic", "ghash_generic", "sha512_generic", "sha3_generic", "crct10dif_generic"];

impl Flavour {
    pub(super) fn modules_file(self) -> String {
        format!("modules-{}.cpio", self.name)
    }
}

impl Guest {
    /// The same guest with its kernel's modules of cryptography, or [`Skip`].
    pub fn with_modules(self) -> Result<Self> {
        let cache = Cache::new();
        let manifest = cache.manifest()?;
        let file = self.flavour.modules_file();
        if !manifest.lists(&file) {
            let reason = std::env::var(REASON_VARIABLE)
                .unwrap_or_else(|_| "run `cargo xtask guests`".to_owned());
            return Err(Skip(format!("no modules of {}: {reason}", self.flavour.name)).into());
        }
        manifest.verify(&cache.directory, &file)?;
        // The kernel unpacks archives that follow each other.
        let both = [fs::read(&self.initrd)?, fs::read(cache.directory.join(&file))?].concat();
        let initrd = cache.directory.join(format!("initramfs-{file}"));
        if fs::read(&initrd).ok().as_deref() != Some(&both) {
            write_whole(&initrd, &both)?;
        }
        Ok(Self { initrd, ..self })
    }
}

/// An archive of the modules in a kernel's package.
pub(super) fn archive(package: &Package) -> Result<Vec<u8>> {
    let files = package.extract_all(|path| {
        path.ends_with(".ko")
            && ["/kernel/arch/x86/crypto/", "/kernel/crypto/", "/kernel/lib/"]
                .iter()
                .any(|directory| path.contains(directory))
    })?;
    let modules: BTreeMap<String, (bool, Vec<u8>)> = files
        .into_iter()
        .map(|(path, bytes)| (name(&path), (path.contains("/arch/x86/"), bytes)))
        .collect();
    let mut order = Vec::new();
    for (name, (is_ours, _)) in &modules {
        if *is_ours || GENERIC.contains(&name.as_str()) {
            visit(name, &modules, &mut order)?;
        }
    }
    let mut archive = Archive::default();
    archive.directory("lib", 0o755);
    archive.directory(DIRECTORY, 0o755);
    for name in &order {
        archive.file(&format!("{DIRECTORY}/{name}.ko"), 0o644, &modules[*name].1);
    }
    archive.file(&format!("{DIRECTORY}/{ORDER}"), 0o644, (order.join("\n") + "\n").as_bytes());
    Ok(archive.finish())
}

/// A module's name as others refer to it.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".ko").replace('-', "_")
}

/// Puts a module behind those it depends on.
fn visit<'a>(
    name: &str,
    modules: &'a BTreeMap<String, (bool, Vec<u8>)>,
    order: &mut Vec<&'a str>,
) -> Result<()> {
    if order.contains(&name) {
        return Ok(());
    }
    let (name, (_, bytes)) =
        modules.get_key_value(name).with_context(|| format!("there is no module {name}"))?;
    for dependency in dependencies(bytes) {
        visit(&self::name(dependency), modules, order)?;
    }
    order.push(name);
    Ok(())
}

/// What a module's section `.modinfo` says that it depends on.
fn dependencies(module: &[u8]) -> impl Iterator<Item = &str> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|window| window == KEY);
    let value = at.map_or(&[][..], |at| &module[at + KEY.len()..]);
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    let list = str::from_utf8(&value[..end]).unwrap_or_default();
    list.split(',').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_stand_behind_what_they_depend_on() -> Result<()> {
        let module = |depends: &str| (true, format!("x\0depends={depends}\0y").into_bytes());
        let modules = BTreeMap::from([
            ("a".to_owned(), module("c-1,b")),
            ("b".to_owned(), module("d")),
            ("c_1".to_owned(), module("d")),
            ("d".to_owned(), module("")),
        ]);
        let mut order = Vec::new();
        visit("a", &modules, &mut order)?;
        assert_eq!(order, ["d", "c_1", "b", "a"]);
        assert_eq!(name("lib/kernel/aesni-intel.ko"), "aesni_intel");
        Ok(())
    }
}
