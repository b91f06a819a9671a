//! Reads the trace JSON of Kineto, torch's profiler: kernels, copies, fills, waits, calls and annotations. It is read
//! twice as a stream: first what it is of, its annotations and launches, then its rows. Of each launch 16 bytes are kept.

mod annotations;
mod events;
mod rows;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::ingest::{Ingest, IngestError, id_of};
use annotations::Annotations;
use events::read;
use rows::Collected;

impl Ingest {
    /// Adds a trace of one process, `.json` or compressed.
    pub fn kineto(&mut self, path: &Path) -> Result<(), IngestError> {
        let wrong = |reason: String| IngestError::NotKineto {
            path: path.to_owned(),
            reason,
        };
        let (mut span_us, mut host, mut work) = (None::<(f64, f64)>, None, 0_u64);
        let mut annotations = Annotations::default();
        let head = read(open(path).map_err(&wrong)?, |event| {
            if let (true, Some((start, end))) = (event.has_row(), event.span_us()) {
                let (first, last) = span_us.unwrap_or((start, end));
                span_us = Some((first.min(start), last.max(end)));
                work += u64::from(event.is_work());
            }
            if event.is_host() {
                host = host.or(event.pid.as_ref().and_then(serde_json::Value::as_u64));
            }
            annotations.event(&event);
            Ok(())
        })
        .map_err(|error| wrong(error.to_string()))?;
        annotations.nest();
        let Some(span_us) = span_us.filter(|_| work > 0) else {
            return Err(wrong("it has no kernel, copy or fill".to_owned()));
        };
        self.window += 1;
        // A trace of GPU work alone does not say which process it is of.
        let pid = host.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(1);
        let span_ns = (head.unix_ns(span_us.0), head.unix_ns(span_us.1));
        self.take_part(pid, "torch", span_ns);
        let mut collected = Collected::new(&head, annotations.launch_paths(), id_of(pid), self.window);
        collected.ranges(&mut self.recorder, annotations.all())?;
        if self.window == 1 {
            collected.devices(&mut self.recorder)?;
        }
        let mut failed = None;
        let done = read(open(path).map_err(&wrong)?, |event| {
            collected.event(&mut self.recorder, &event).map_err(|error| {
                let text = error.to_string();
                failed = Some(error);
                text
            })
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        done.map_err(|error| wrong(error.to_string()))?;
        for (table, count) in collected.finish(&mut self.recorder)? {
            self.lose(pid, table, "invalid_timestamp", count, span_ns.0);
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, String> {
    let open = || {
        let mut file = BufReader::new(File::open(path)?);
        let compressed = std::io::BufRead::fill_buf(&mut file)?.starts_with(&[0x1f, 0x8b]);
        Ok::<_, std::io::Error>((file, compressed))
    };
    match open().map_err(|error| error.to_string())? {
        (file, true) => Ok(Box::new(BufReader::new(MultiGzDecoder::new(file)))),
        (file, false) => Ok(Box::new(file)),
    }
}
