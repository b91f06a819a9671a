//! docs/schema.md is made from the definitions in `colonel::schema`, so it can't say anything else.
//! `COLONEL_BLESS=1 cargo test --test docs` rewrites it.

use std::fmt::Write as _;
use std::path::Path;

use colonel::schema::{columns::Table, env, manifest, tables};

const HEAD: &str = "\
# The session on disk

Made from `src/schema/` by `tests/docs.rs`; `COLONEL_BLESS=1 cargo test --test docs` rewrites it.

    SESSIONS_DIR/5e27fc0e/
      session.json                       what ran, where, how it ended; rows, losses, problems. Written by the launcher only
      processes/4711-86213.json          one a captured process (pid and start time in clock ticks), written by its guest only
      processes/4711-86213.progress      records received and sealed, rewritten in place: what a killed process leaves to count
      samples/4711-86213/0.samples       raw hardware counters of device 0, until they are evaluated into the table `counters`
      kernels/4711-86213/000001.parquet  one folder a table and process; each file is complete in itself

A session folder is a plain Parquet dataset; no colonel is needed to read it:

    pl.scan_parquet(\"5e27fc0e/kernels/**/*.parquet\")      # polars
    pd.read_parquet(\"5e27fc0e/kernels\")                   # pandas
    select name, count(*) from '5e27fc0e/kernels/**/*.parquet' group by name   -- DuckDB

Names with a dot in front are unfinished and never data. A session that the launcher compacted has one file a table and
process, sorted by `start_ns`; before that, segments overlap a little in time. Times are Unix nanoseconds, sizes bytes.
Text is dictionary-encoded. A column that this CUPTI version can't give is null, never zero. A record with a zero or
reversed timestamp is no row: it is counted in `losses`.
";

const LAYERS: &str = "
# Layers

`kernels.layer` is filled in by compaction, and by the reader for a session that was not compacted. A name in `nvtx_path`
says it first (`layer_source` is `nvtx`):

- The outermost range with `layer`, `layers`, `block`, `blocks` or `h` and a number: `model.layers.12.self_attn`, `layer 3`,
  `blocks[7]` and `transformer.h.3` are of layer 12, 3, 7 and 3. Between word and number there may be one of `. _[` or a
  space, `=` only behind `layer`, or nothing; `h` takes `.` or `[` alone. `num_layers=32` and `layers 0-15` are no layers.
- Numbers are those of one stack of layers a process: the model's or the decoder's; an encoder's where there is no other; of
  several lists of modules, as `transformer_blocks` and `single_transformer_blocks`, that with most layers. The others keep
  the stack's name: `encoder.block.3`, `draft_model.layers.3`, `visual.blocks.7`, `draft/model.layers.3` within a range
  `draft`. Those of a vision, audio or image tower and of a draft model always do.
- Without one, the innermost range whose last word, after the last dot and without arguments, is `embed_tokens`,
  `word_embeddings`, `embedding`, `embeddings`, `wte`, `norm`, `final_norm`, `final_layernorm`, `ln_f`, `lm_head`, `logits`,
  `logits_processor`, `compute_logits`, `sampling`, `sampler` or `sample`: that word.

Where no range says it, the structure does (`layer_source` is `structure`): a forward pass repeats a block of kernels, so
each repetition is a layer, counted from 0, which begins with its norm. What lies before the first and behind the last layer
is null, but for a norm right behind the last one: it is the model's final one, `norm`. Where ranges name some kernels of
a pass, the others' layers are counted from these, and no border lies within a range. Where the two contradict each other, ranges win. A pass that was cut because a window opened or closed in the middle
of a step is counted from the end that is there, if all other passes of the process have one number of layers.
";

fn table_section(table: &Table) -> String {
    let mut text = format!(
        "\n## {}\n{}\n\n| column | type | null | meaning |\n|---|---|---|---|\n",
        table.name, table.doc
    );
    for column in &table.columns {
        let null = if column.nullable { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {null} | {} |",
            column.name,
            column.type_name(),
            column.doc
        );
    }
    text
}

fn schema_page() -> String {
    let manifest::Format { major, minor } = manifest::FORMAT;
    let mut text = HEAD.to_owned();
    let _ = write!(
        text,
        "\nThis is format {major}.{minor}. The minor grows with each added field, column or table: readers of the same \
         major take what they\nknow. The major grows when an old reader would misread; it refuses then and names the \
         colonel that reads it.\n\n# Tables\n"
    );
    tables::all().iter().for_each(|table| text += &table_section(table));
    text += LAYERS;
    text += "\n# Environment\n\n| variable | read by | meaning |\n|---|---|---|\n";
    for variable in env::ALL {
        let _ = writeln!(text, "| `{}` | {} | {} |", variable.name, variable.reader, variable.doc);
    }
    text
}

#[test]
fn schema_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema.md");
    let page = schema_page();
    if std::env::var_os("COLONEL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/schema.md is out of date: run `COLONEL_BLESS=1 cargo test --test docs`"
    );
}
