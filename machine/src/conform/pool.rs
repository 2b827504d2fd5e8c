//! Many things at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `work` for every item on `jobs` threads; results in the order of the items. `progress`
/// hears after each how many are done.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    progress: impl Fn(usize) + Sync,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        while let Some((n, item)) = {
            let n = next.fetch_add(1, Ordering::Relaxed);
            items.get(n).map(|item| (n, item))
        } {
            let result = work(item);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((n, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(worker);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_all_are_counted() {
        let most = AtomicUsize::new(0);
        let progress = |done| {
            most.fetch_max(done, Ordering::Relaxed);
        };
        let items: Vec<u32> = (0..100).collect();
        let doubled = each(&items, 7, progress, |n| n * 2);
        assert_eq!(doubled, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(most.into_inner(), 100);
        assert!(each(&[] as &[u32], 3, |_| {}, |n| *n).is_empty());
    }
}
