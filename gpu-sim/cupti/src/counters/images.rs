//! Images, opaque to clients. Configuration: magic, number of metrics, their numbers. Counter data: magic, samples that
//! fit, samples there, number of metrics, their numbers, then the samples: start, end, a count a metric. All `u64`.

/// First word of a configuration.
const CONFIG: u64 = u64::from_le_bytes(*b"SIM-CONF");
/// First word of counter data.
const DATA: u64 = u64::from_le_bytes(*b"SIM-DATA");

/// Words of either.
fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

fn put(bytes: &mut [u8], index: usize, word: u64) {
    if let Some(place) = bytes.get_mut(index * 8..index * 8 + 8) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// Makes a configuration.
pub(crate) fn config(metrics: &[u32]) -> Vec<u8> {
    let head = [CONFIG, metrics.len() as u64];
    let words = head.into_iter().chain(metrics.iter().map(|metric| u64::from(*metric)));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Metrics of a configuration.
pub(crate) fn metrics_of_config(bytes: &[u8]) -> Option<Vec<u32>> {
    let words = words(bytes);
    let count = usize::try_from(*words.get(1)?).ok()?;
    let metrics = words.get(2..2 + count).filter(|_| words[0] == CONFIG)?;
    metrics.iter().map(|metric| u32::try_from(*metric).ok()).collect()
}

/// A sample: start, end, and a count a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) counts: Vec<u64>,
}

const HEAD: usize = 4;

/// Bytes of counter data.
pub(crate) fn data_bytes(metrics: usize, samples: usize) -> usize {
    8 * (HEAD + metrics + samples * (2 + metrics))
}

/// Makes counter data without samples in `bytes`, which may be larger.
pub(crate) fn initialize(bytes: &mut [u8], metrics: &[u32]) {
    bytes.fill(0);
    let head = HEAD + metrics.len();
    let fits = (bytes.len() / 8).saturating_sub(head) / (2 + metrics.len());
    put(bytes, 0, DATA);
    put(bytes, 1, fits as u64);
    put(bytes, 3, metrics.len() as u64);
    for (index, metric) in metrics.iter().enumerate() {
        put(bytes, HEAD + index, u64::from(*metric));
    }
}

/// Counter data as read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data<'a> {
    words: &'a [[u8; 8]],
}

impl<'a> Data<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Data<'a>> {
        let (words, _) = bytes.as_chunks::<8>();
        let data = Data { words };
        (words.len() > HEAD && data.word(0) == DATA).then_some(data)
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |word| u64::from_le_bytes(*word))
    }

    pub(crate) fn room(&self) -> usize {
        self.word(1) as usize
    }

    pub(crate) fn len(&self) -> usize {
        self.word(2) as usize
    }

    fn metric_count(&self) -> usize {
        self.word(3) as usize
    }

    /// Numbers of the metrics.
    pub(crate) fn metrics(&self) -> Vec<u32> {
        (0..self.metric_count())
            .map(|index| self.word(HEAD + index) as u32)
            .collect()
    }

    pub(crate) fn sample(&self, index: usize) -> Option<Sample> {
        let metrics = self.metric_count();
        let at = HEAD + metrics + index.checked_mul(2 + metrics)?;
        (index < self.len()).then(|| Sample {
            start: self.word(at),
            end: self.word(at + 1),
            counts: (0..metrics).map(|metric| self.word(at + 2 + metric)).collect(),
        })
    }
}

/// Puts samples behind those that are there.
pub(crate) fn append(bytes: &mut [u8], samples: &[Sample]) {
    let Some(data) = Data::read(bytes) else { return };
    let (metrics, there) = (data.metric_count(), data.len());
    for (index, sample) in samples.iter().enumerate() {
        let at = HEAD + metrics + (there + index) * (2 + metrics);
        put(bytes, at, sample.start);
        put(bytes, at + 1, sample.end);
        for (metric, count) in sample.counts.iter().enumerate() {
            put(bytes, at + 2 + metric, *count);
        }
    }
    put(bytes, 2, (there + samples.len()) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_out_as_they_went_in() {
        let mut bytes = vec![0; data_bytes(2, 3)];
        initialize(&mut bytes, &[7, 9]);
        let sample = |start: u64| Sample {
            start,
            end: start + 20,
            counts: vec![start, 5],
        };
        append(&mut bytes, &[sample(1)]);
        append(&mut bytes, &[sample(21), sample(41)]);
        let data = Data::read(&bytes).unwrap();
        assert_eq!((data.room(), data.len(), data.metrics()), (3, 3, vec![7, 9]));
        assert_eq!(data.sample(2), Some(sample(41)));
        assert_eq!(data.sample(3), None);
        assert!(Data::read(&[1; 100]).is_none());
    }

    #[test]
    fn a_configuration_says_its_metrics() {
        assert_eq!(metrics_of_config(&config(&[3, 1])), Some(vec![3, 1]));
        assert_eq!(metrics_of_config(&[0; 40]), None);
    }
}
