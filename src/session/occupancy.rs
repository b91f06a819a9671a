//! How many blocks of a kernel an SM holds at once: the rules of NVIDIA's occupancy calculator, for devices from
//! Maxwell on. Clusters are not looked at: they can only lower it.

/// What of a launch limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Threads of a block.
    pub threads_per_block: u64,
    /// Registers a thread.
    pub registers_per_thread: u64,
    /// Static and dynamic shared memory a block.
    pub shared_bytes_per_block: u64,
}

/// What a device has, as the table `devices` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Compute capability, major.
    pub compute_major: u32,
    /// Compute capability, minor.
    pub compute_minor: u32,
    /// Streaming multiprocessors.
    pub sm_count: u64,
    /// Threads that an SM holds.
    pub max_threads_per_sm: u64,
    /// Blocks that an SM holds.
    pub max_blocks_per_sm: u64,
    /// Registers of an SM.
    pub registers_per_sm: u64,
    /// Shared memory of an SM.
    pub shared_bytes_per_sm: u64,
    /// Shared memory that the driver keeps a block.
    pub reserved_shared_bytes_per_block: u64,
    /// Threads of a warp.
    pub warp_size: u64,
}

/// Registers are given to a warp in units of this.
const REGISTER_UNIT: u64 = 256;

/// What a launch makes of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occupancy {
    /// Blocks that an SM holds.
    pub blocks_per_sm: u64,
    /// Warps resident, per cent of the SM's maximum.
    pub percent: f64,
}

impl Device {
    /// Occupancy of a launch; `None` where it can't run or the device says nothing.
    pub fn occupancy(&self, launch: Launch) -> Option<Occupancy> {
        let warps = launch.threads_per_block.div_ceil(nonzero(self.warp_size)?);
        let max_warps = self.max_threads_per_sm / self.warp_size;
        let by_warps = max_warps / nonzero(warps)?;
        let blocks = by_warps
            .min(self.max_blocks_per_sm)
            .min(self.blocks_by_registers(launch, warps)?)
            .min(self.blocks_by_shared_memory(launch)?);
        let blocks_per_sm = nonzero(blocks)?;
        let percent = 100.0 * (blocks_per_sm * warps) as f64 / nonzero(max_warps)? as f64;
        Some(Occupancy { blocks_per_sm, percent })
    }

    /// Waves of a grid: its blocks over those that the device holds at once.
    pub fn waves(&self, occupancy: Occupancy, grid_blocks: u64) -> Option<f64> {
        Some(grid_blocks as f64 / nonzero(occupancy.blocks_per_sm * self.sm_count)? as f64)
    }

    /// A warp lives in one of the SM's partitions and has its registers there.
    fn blocks_by_registers(&self, launch: Launch, warps: u64) -> Option<u64> {
        let partitions = if (self.compute_major, self.compute_minor) == (6, 0) {
            2
        } else {
            4
        };
        let per_warp = (launch.registers_per_thread * self.warp_size).next_multiple_of(REGISTER_UNIT);
        if per_warp == 0 {
            return Some(u64::MAX);
        }
        let warps_per_partition = self.registers_per_sm / partitions / per_warp;
        Some(warps_per_partition * partitions / nonzero(warps)?)
    }

    fn blocks_by_shared_memory(&self, launch: Launch) -> Option<u64> {
        let unit = if self.compute_major >= 8 { 128 } else { 256 };
        let per_block = (launch.shared_bytes_per_block + self.reserved_shared_bytes_per_block).next_multiple_of(unit);
        Some(self.shared_bytes_per_sm.checked_div(per_block).unwrap_or(u64::MAX))
    }
}

fn nonzero(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Device = Device {
        compute_major: 9,
        compute_minor: 0,
        sm_count: 132,
        max_threads_per_sm: 2048,
        max_blocks_per_sm: 32,
        registers_per_sm: 65536,
        shared_bytes_per_sm: 233_472,
        reserved_shared_bytes_per_block: 1024,
        warp_size: 32,
    };

    fn launch(threads_per_block: u64, registers_per_thread: u64, shared_bytes_per_block: u64) -> Launch {
        Launch {
            threads_per_block,
            registers_per_thread,
            shared_bytes_per_block,
        }
    }

    fn blocks(threads: u64, registers: u64, shared: u64) -> Option<u64> {
        H100.occupancy(launch(threads, registers, shared))
            .map(|occupancy| occupancy.blocks_per_sm)
    }

    #[test]
    fn each_limit_can_be_the_one() {
        assert_eq!(blocks(256, 32, 0), Some(8), "threads");
        assert_eq!(blocks(32, 16, 0), Some(32), "blocks");
        assert_eq!(blocks(256, 64, 0), Some(4), "registers");
        assert_eq!(blocks(128, 32, 100 * 1024), Some(2), "shared memory");
    }

    #[test]
    fn registers_are_given_in_units_and_by_partition() {
        // 40 × 32 = 1280 registers a warp, 12 warps in each of 4 partitions: 48 warps, 6 blocks of 8.
        assert_eq!(blocks(256, 40, 0), Some(6));
        // 41 registers are rounded up to 48 (1536 a warp): 10 warps a partition, 40 in all, 5 blocks.
        assert_eq!(blocks(256, 41, 0), Some(5));
        // 168 registers: 5376 a warp, 3 warps a partition, 12 in all: 3 blocks of 4 warps, though 65536 / 5376 / 4 is 3.05.
        assert_eq!(blocks(128, 168, 0), Some(3));
    }

    #[test]
    fn the_reserved_kilobyte_counts() {
        // Two blocks of 113 KiB: with 1 KiB reserved each they fill the SM's 228 KiB exactly.
        assert_eq!(blocks(128, 32, 113 * 1024), Some(2));
        assert_eq!(blocks(128, 32, 113 * 1024 + 1), Some(1));
        assert_eq!(blocks(128, 32, 227 * 1024 + 1), None, "does not fit at all");
    }

    #[test]
    fn percent_and_waves() {
        let occupancy = H100.occupancy(launch(256, 64, 0)).unwrap();
        assert_eq!(occupancy.percent, 50.0);
        assert_eq!(H100.waves(occupancy, 4 * 132), Some(1.0));
        assert_eq!(H100.waves(occupancy, 66), Some(0.125));
        // A block of 33 threads takes two warps.
        assert_eq!(H100.occupancy(launch(33, 16, 0)).unwrap().percent, 100.0);
    }

    #[test]
    fn a_device_that_says_nothing_gives_nothing() {
        let silent = Device {
            max_threads_per_sm: 0,
            ..H100
        };
        assert_eq!(silent.occupancy(launch(256, 32, 0)), None);
        let silent = Device { warp_size: 0, ..H100 };
        assert_eq!(silent.occupancy(launch(256, 32, 0)), None);
        assert_eq!(H100.occupancy(launch(0, 32, 0)), None);
    }
}
