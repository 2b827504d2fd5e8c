use std::process::Command;
use brolga_test_roms::conformance::{self, Report};
fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for rom in conformance::all() {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == rom.name) { continue; }
        let image = format!("/tmp/rom-{}.bin", rom.name);
        let out = format!("/tmp/rom-{}.out", rom.name);
        std::fs::write(&image, &rom.image).unwrap();
        let status = Command::new("timeout").args(["40","qemu-system-x86_64","-machine","pc","-accel","tcg","-cpu","max,vendor=GenuineIntel","-m","64","-display","none","-nic","none","-no-reboot","-device","isa-debug-exit,iobase=0xf4,iosize=4","-bios",&image,"-debugcon",&format!("file:{out}")]).status().unwrap();
        let bytes = std::fs::read(&out).unwrap();
        let mut got = vec![None; rom.checks.len()];
        let mut n = 0;
        for r in Report::read(&bytes) { n += 1; if let Some(g) = got.get_mut(r.check as usize) { *g = Some(r.value); } }
        let mut bad = 0;
        for (i, c) in rom.checks.iter().enumerate() {
            match got[i] {
                Some(v) if c.accepts(v) => {}
                Some(v) => { bad += 1; if bad < 60 { println!("  {} [{i}] {}: expected {} got {}", rom.name, c.name, c.show(c.expected), c.show(v)); } }
                None => { bad += 1; if bad < 60 { println!("  {} [{i}] {}: missing (expected {})", rom.name, c.name, c.show(c.expected)); } }
            }
        }
        println!("{}: {} checks, {} reports, {} bad, exit {:?}", rom.name, rom.checks.len(), n, bad, status.code());
    }
}
