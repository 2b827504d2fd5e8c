//! Translation beside the vCPU: threads that make code from what they are given, while the
//! interpreter goes on with it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::compile::{CompileError, Compiled, Compiler};
use crate::job::Job;

/// A job, and what has become of it.
pub(crate) type Finished = (Job, Result<Compiled, CompileError>);

/// The threads. They end with this, after what each is at.
pub(crate) struct Background {
    /// There until the threads are to end.
    jobs: Option<Sender<Job>>,
    finished: Receiver<Finished>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn new(threads: usize) -> io::Result<Background> {
        let (jobs, queue) = channel();
        let (results, finished) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let stop = Arc::new(AtomicBool::new(false));
        let mut background = Background { jobs: Some(jobs), finished, stop, threads: Vec::new() };
        for _ in 0..threads {
            let compiler = Compiler::new().map_err(io::Error::other)?;
            let (queue, results) = (Arc::clone(&queue), results.clone());
            let stop = Arc::clone(&background.stop);
            let work = move || work(compiler, &queue, &results, &stop);
            let thread = Builder::new().name("brolga-jit".into()).spawn(work)?;
            background.threads.push(thread);
        }
        Ok(background)
    }

    /// Hands a job over; what becomes of it is among [`Background::finished`] later.
    pub(crate) fn start(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Nobody receives only if all threads have panicked: then nothing is translated.
            let _ = jobs.send(job);
        }
    }

    /// A job that is done, if there is one.
    pub(crate) fn finished(&self) -> Option<Finished> {
        self.finished.try_recv().ok()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(
    mut compiler: Compiler,
    queue: &Mutex<Receiver<Job>>,
    results: &Sender<Finished>,
    stop: &AtomicBool,
) {
    loop {
        // Its own statement: the lock must not be held while the job is done.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = compiler.compile(&job.request());
        if results.send((job, outcome)).is_err() {
            return;
        }
    }
}
