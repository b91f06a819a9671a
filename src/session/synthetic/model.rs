//! The kernels of a language model as vLLM launches them on an H100, with the layer that each belongs to: what the
//! search for layers is tested against. Names are those of docs/measurements/2026-11-24-vllm-capture.

/// How the model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A decode step is one CUDA graph, prefill is launched kernel by kernel.
    Full,
    /// A graph between two attentions, which are launched alone.
    Piecewise,
    /// Without graphs and without a compiler.
    Eager,
}

/// A model and what happens to it.
#[derive(Debug, Clone)]
pub struct Model {
    /// Decoder layers.
    pub layers: u16,
    /// How it is run.
    pub engine: Engine,
    /// Of 10,000 kernels launched, as many more come from elsewhere.
    pub foreign: u32,
    /// Of 10,000 kernels launched alone, as many are lost.
    pub lost: u32,
    /// First correlation id.
    pub first_id: u32,
}

/// A kernel that was launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Name.
    pub name: String,
    /// Its launch.
    pub correlation_id: u32,
    /// Graph and node.
    pub node: Option<(u32, u64)>,
    /// Its layer; none outside of the layers.
    pub layer: Option<u16>,
    /// It is not of the model.
    pub is_foreign: bool,
    /// Its step, from 0.
    pub step: u32,
    /// Requests in the step.
    pub batch: u32,
    /// Whether the step is a prefill.
    pub is_prefill: bool,
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn hits(&mut self, of_10_000: u32) -> bool {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % 10_000) < u64::from(of_10_000)
    }
}

/// What a step launches: a kernel alone, or a graph.
enum Piece {
    Alone(String, Option<u16>),
    Graph(u32, Vec<(String, Option<u16>)>),
}

impl Model {
    /// The kernels of steps, given as (is a prefill, batch size).
    pub fn launch(&self, steps: &[(bool, u32)]) -> Vec<Launched> {
        let mut launched = Vec::new();
        let mut dice = Dice(u64::from(self.first_id) + 7);
        let mut id = self.first_id;
        for (step, &(is_prefill, batch)) in (0..).zip(steps) {
            let mut add = |name: String, id: u32, node, layer, is_foreign| {
                launched.push(Launched {
                    name,
                    correlation_id: id,
                    node,
                    layer,
                    is_foreign,
                    step,
                    batch,
                    is_prefill,
                });
            };
            for piece in self.step(is_prefill, batch, step) {
                if dice.hits(self.foreign) {
                    id = id.wrapping_add(3);
                    add(format!("foreign_copy_{}", id % 5), id, None, None, true);
                }
                // Other calls take ids too.
                id = id.wrapping_add(1 + u32::from(dice.hits(3000)));
                match piece {
                    Piece::Alone(..) if dice.hits(self.lost) => {}
                    Piece::Alone(name, layer) => add(name, id, None, layer, false),
                    Piece::Graph(graph, kernels) => {
                        for (node, (name, layer)) in (0..).zip(kernels) {
                            add(name, id, Some((graph, u64::from(graph) << 32 | node)), layer, false);
                        }
                    }
                }
            }
        }
        launched
    }

    fn step(&self, is_prefill: bool, batch: u32, step: u32) -> Vec<Piece> {
        let alone = |name: &str| Piece::Alone(name.to_owned(), None);
        let mut pieces: Vec<Piece> = [
            "_prepare_pos_seq_lens_kernel",
            "_combine_sampled_and_draft_tokens_kernel",
            "_gather_block_tables_kernel",
            "_compute_slot_mappings_kernel",
            "flash_prepare_varlen_num_blocks_kernel",
        ]
        .map(alone)
        .into();
        if is_prefill {
            pieces.insert(0, alone("_prepare_prefill_inputs_kernel"));
        } else if step.is_multiple_of(3) {
            pieces.push(alone("_apply_write_kernel"));
        }
        let mut forward = Vec::new();
        if self.engine == Engine::Eager {
            forward.push(("vectorized_gather_kernel<16, long>".to_owned(), None));
        }
        for layer in 0..self.layers {
            let kernels = self.layer(layer, is_prefill, batch);
            forward.extend(kernels.into_iter().map(|name| (name, Some(layer))));
        }
        let norm = match self.engine {
            Engine::Eager => "fused_add_rms_norm_kernel<8>",
            _ => "triton_per_fused_fused_add_rms_norm_2",
        };
        forward.push((norm.to_owned(), None));
        match self.engine {
            Engine::Full if !is_prefill => pieces.push(Piece::Graph(100 + batch, forward)),
            Engine::Piecewise => pieces.extend(split_at_attention(forward, batch, is_prefill)),
            _ => pieces.extend(forward.into_iter().map(|(name, layer)| Piece::Alone(name, layer))),
        }
        pieces.extend(
            [
                "vectorized_gather_kernel<16, long>",
                "nvjet_sm90_tst_384x8_64x4_2x1_v_bz_TNT",
                "index_elementwise_kernel<128, 4>",
                "_bias_kernel",
                "_gumbel_sample_kernel",
                "reduce_kernel<512, 1, ArgMaxOps>",
                "_get_num_sampled_and_rejected_kernel",
                "_post_update_kernel",
            ]
            .map(alone),
        );
        pieces
    }

    fn layer(&self, layer: u16, is_prefill: bool, batch: u32) -> Vec<String> {
        let gemm = |what: &str| {
            format!(
                "nvjet_sm90_tst_{}x{batch}_v_bz_{what}",
                if is_prefill { 128 } else { 64 }
            )
        };
        let attention = if is_prefill {
            "device_kernel<FlashAttnFwdSm90<192>>"
        } else {
            "device_kernel<FlashAttnFwdSm90<64>>"
        };
        let is_first = layer == 0;
        let mut kernels = if self.engine == Engine::Eager {
            vec![
                if is_first {
                    "rms_norm_kernel<8>"
                } else {
                    "fused_add_rms_norm_kernel<8>"
                }
                .to_owned(),
                gemm("bias_TNT"),
                "rotary_embedding_kernel<true>".to_owned(),
                "reshape_and_cache_flash_kernel".to_owned(),
                "vectorized_elementwise_kernel<4, FillFunctor<int>>".to_owned(),
            ]
        } else {
            vec![
                if is_first {
                    "triton_per_fused__to_copy_embedding_rms_norm_0"
                } else {
                    "triton_per_fused_fused_add_rms_norm_2"
                }
                .to_owned(),
                gemm("bias_TNT"),
                if is_first {
                    "triton_poi_fused_1"
                } else {
                    "triton_poi_fused_3"
                }
                .to_owned(),
                "reshape_and_cache_flash_kernel".to_owned(),
            ]
        };
        kernels.push(attention.to_owned());
        if !is_prefill {
            kernels.push("device_kernel<FlashAttnFwdCombine>".to_owned());
        }
        kernels.push(gemm("TNT"));
        let (norm, act) = match self.engine {
            Engine::Eager => ("fused_add_rms_norm_kernel<8>", "act_and_mul_kernel<silu>"),
            _ => (
                "triton_per_fused_fused_add_rms_norm_0",
                "triton_poi_fused_mul_silu_slice_1",
            ),
        };
        kernels.extend([norm.to_owned(), gemm("gate_TNT"), act.to_owned(), gemm("splitK_TNT")]);
        kernels.extend([
            "splitKreduce_kernel<32, 16>".to_owned(),
            "splitKreduce_kernel<32, 16>".to_owned(),
        ]);
        kernels
    }
}

/// As vLLM cuts the compiled graph: each piece reaches from one attention to the next.
fn split_at_attention(forward: Vec<(String, Option<u16>)>, batch: u32, is_prefill: bool) -> Vec<Piece> {
    let is_attention = |name: &str| name.starts_with("device_kernel") || name.starts_with("reshape_and_cache");
    let first = 1000 * (batch + u32::from(is_prefill) * 500);
    let mut pieces = Vec::new();
    let mut graph = Vec::new();
    for (name, layer) in forward {
        if !is_attention(&name) {
            graph.push((name, layer));
            continue;
        }
        if !graph.is_empty() {
            let number = first + u32::from(layer.unwrap_or(0));
            pieces.push(Piece::Graph(number, std::mem::take(&mut graph)));
        }
        pieces.push(Piece::Alone(name, layer));
    }
    pieces.push(Piece::Graph(first + 999, graph));
    pieces
}
