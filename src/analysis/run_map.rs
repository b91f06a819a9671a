//! A map for keys that come in runs, as the streams of kernels do.

use std::collections::BTreeMap;

/// Looks a key up only where it differs from the one before.
#[derive(Debug, Clone)]
pub(crate) struct RunMap<K, V> {
    places: BTreeMap<K, usize>,
    values: Vec<V>,
    last: Option<(K, usize)>,
}

impl<K, V> Default for RunMap<K, V> {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            values: Vec::new(),
            last: None,
        }
    }
}

impl<K: Copy + Ord, V: Default> RunMap<K, V> {
    /// The value of a key, which is made where there is none.
    pub(crate) fn of(&mut self, key: K) -> &mut V {
        let place = match self.last {
            Some((last, place)) if last == key => place,
            _ => self.place(key),
        };
        &mut self.values[place]
    }

    fn place(&mut self, key: K) -> usize {
        let values = &mut self.values;
        let place = *self.places.entry(key).or_insert_with(|| {
            values.push(V::default());
            values.len() - 1
        });
        self.last = Some((key, place));
        place
    }
}

impl<K: Ord, V> RunMap<K, V> {
    /// All, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.places.iter().map(|(key, &place)| (key, &self.values[place]))
    }

    /// The values, in the order in which their keys came.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter()
    }

    /// Calls with each, to change it, in the order of the keys.
    pub(crate) fn each_mut(&mut self, mut change: impl FnMut(&K, &mut V)) {
        for (key, &place) in &self.places {
            change(key, &mut self.values[place]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_count_for_their_keys() {
        let mut map = RunMap::<u32, u32>::default();
        for key in [7, 7, 3, 7, 3, 3, 9] {
            *map.of(key) += 1;
        }
        map.each_mut(|key, count| *count += 10 * key);
        assert!(map.iter().eq([(&3, &33), (&7, &73), (&9, &91)]));
        assert!(map.values().eq([&73, &33, &91]));
    }
}
