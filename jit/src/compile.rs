//! Cranelift, set up for regions.

use std::sync::Arc;

use cranelift_codegen::isa::{self, TargetIsa};
use cranelift_codegen::settings::{self, Configurable, SetError};
use cranelift_codegen::{CodegenError, Context};
use cranelift_frontend::FunctionBuilderContext;

use crate::frame;
use crate::translate::{Products, Request, translate};

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Cranelift knows no such host.
    #[error("Cranelift does not support this host: {0}")]
    Host(&'static str),
    /// A setting does not exist.
    #[error("Cranelift does not take a setting: {0}")]
    Setting(#[from] SetError),
    /// Cranelift failed.
    #[error("Cranelift: {0}")]
    Codegen(#[from] Box<CodegenError>),
    /// The code cannot share the regions' stack frame.
    #[error("the code does not fit the frame of regions")]
    Frame,
}

/// A region as machine code.
pub(crate) struct Compiled {
    /// Position-independent.
    pub(crate) code: Vec<u8>,
    /// Where in it to enter.
    pub(crate) entry: usize,
    pub(crate) products: Products,
    /// Its IR, if that is wanted.
    pub(crate) text: String,
}

/// A compiler and the memory it works in.
pub(crate) struct Compiler {
    isa: Arc<dyn TargetIsa>,
    context: Context,
    builder: FunctionBuilderContext,
}

/// The instruction set of this host.
pub(crate) fn host_isa() -> Result<Arc<dyn TargetIsa>, CompileError> {
    set_up(cranelift_native::builder().map_err(CompileError::Host)?)
}

/// An instruction set, set up for regions.
pub(crate) fn set_up(isa: isa::Builder) -> Result<Arc<dyn TargetIsa>, CompileError> {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "none"),
        ("regalloc_algorithm", "backtracking"),
        ("preserve_frame_pointers", "true"),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
        ("enable_alias_analysis", "false"),
        ("enable_heap_access_spectre_mitigation", "false"),
        ("enable_table_access_spectre_mitigation", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ] {
        flags.set(name, value)?;
    }
    Ok(isa.finish(settings::Flags::new(flags)).map_err(Box::new)?)
}

impl Compiler {
    pub(crate) fn new() -> Result<Compiler, CompileError> {
        Ok(Compiler::for_isa(host_isa()?))
    }

    pub(crate) fn for_isa(isa: Arc<dyn TargetIsa>) -> Compiler {
        Compiler { isa, context: Context::new(), builder: FunctionBuilderContext::new() }
    }

    /// Where in the code of the region last compiled that of guest instructions lies: ranges, with
    /// the instruction's offset in its page.
    #[cfg(test)]
    pub(crate) fn origins(&self) -> Vec<(std::ops::Range<usize>, u16)> {
        let code = self.context.compiled_code().expect("a region has been compiled");
        let ranges = code.buffer.get_srclocs_sorted().iter();
        ranges
            .filter(|s| !s.loc.is_default())
            .map(|s| (s.start as usize..s.end as usize, s.loc.bits() as u16))
            .collect()
    }

    /// Translates a region.
    pub(crate) fn compile(&mut self, request: &Request<'_>) -> Result<Compiled, CompileError> {
        self.context.clear();
        let frontend = self.isa.frontend_config();
        let products = translate(request, &mut self.context.func, &mut self.builder, frontend);
        let compiled = self
            .context
            .compile(&*self.isa, &mut Default::default())
            .map_err(|error| Box::new(error.inner))?;
        debug_assert!(compiled.buffer.relocs().is_empty(), "code without addresses");
        debug_assert!(products.links.len() <= request.plan.links(), "cells were taken for them");
        let mut code = compiled.code_buffer().to_vec();
        let calls = compiled.buffer.call_sites().map(|site| site.ret_addr as usize);
        let entry = frame::share(&mut code, calls).ok_or(CompileError::Frame)?;
        let text = if request.wants_text {
            self.context.func.display().to_string()
        } else {
            String::new()
        };
        Ok(Compiled { code, entry, products, text })
    }
}
