//! Writes every ROM of this crate to a file: `write_roms DIRECTORY`.

use std::path::Path;
use std::{env, fs, io, process::ExitCode};

use brolga_test_roms as roms;

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1) else {
        eprintln!("usage: write_roms DIRECTORY");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("write_roms: {}: {error}", Path::new(&directory).display());
            ExitCode::from(2)
        }
    }
}

fn write_all(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (name, image) in [
        ("default_guest", roms::default_guest()),
        ("exit_3", roms::exit_rom(3)),
        ("halt_forever", roms::halt_forever_rom()),
        ("hello", roms::hello_rom()),
        ("nanobench", roms::nanobench::nanobench_rom()),
        ("reset_loop", roms::reset_loop_rom()),
        ("short_sleeps", roms::short_sleeps_rom()),
        ("spin", roms::spin_rom()),
        ("triple_fault", roms::triple_fault_rom()),
    ] {
        let path = directory.join(name).with_extension("bin");
        fs::write(&path, image)?;
        println!("{}", path.display());
    }
    Ok(())
}
