// SPDX-License-Identifier: Apache-2.0
#include "run/options.h"

#include "base/error.h"
#include "base/file_purposes.h"
#include "run/option_checks.h"

namespace starattn {

void Options::check_thinking() const {
  if (thinking_tokens > 0 && !splits_thinking()) {
    fail(Exit::usage, "--thinking-tokens: only with --thinking keep or drop, got --thinking {}",
         thinking);
  }
}

void add_model_options(CLI::App& app, Options& options) {
  app.add_option("--model", options.model, "Model folder (Hugging Face layout)")->required();
}

void add_plan_options(CLI::App& app, Options& options) {
  const char* group = "Method";
  app.add_option("--attention", options.attention,
                 "star, ring (exact, balanced) or dense (exact, one block)")
      ->check(CLI::IsMember({"star", "ring", "dense"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--block-size", options.block_size,
                 "Tokens a context block: 4096, 32k, 1m or auto (n/4, at most 32k)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--anchor-size", options.anchor_size,
                 "Tokens of block 0 that every block sees: 0 to the block size, a part of it "
                 "(b/16), or auto")
      ->capture_default_str()
      ->group(group);
  app.add_option("--reach", options.reach,
                 "Blocks directly before it that a block also sees: a number or all")
      ->capture_default_str()
      ->group(group);
  app.add_option("--recall", options.recall,
                 "Earlier tokens that a block chooses and also sees, layer by layer: a number, a "
                 "part of the block size (b/2), auto (b/2), or 0 for plain star attention")
      ->capture_default_str()
      ->group(group);
  app.add_option("--recall-rows", options.recall_rows,
                 "Rows of a block that choose them: a number, a part of the block, or auto (b/16)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--placement", options.placement, "Blocks on ranks: contiguous, zigzag or auto")
      ->check(CLI::IsMember({"auto", "contiguous", "zigzag"}))
      ->capture_default_str()
      ->group(group);
}

void add_anchor_options(CLI::App& app, Options& options) {
  app.add_option("--anchor", options.anchor,
                 "broadcast the anchor's KV, or recompute it in front of every block")
      ->check(CLI::IsMember({"broadcast", "recompute"}))
      ->capture_default_str()
      ->group("Method");
}

void add_length_options(CLI::App& app, Options& options) {
  app.add_flag("--allow-long", options.allow_long,
               "Accept contexts longer than the model's positions")
      ->group("Method");
}

void add_text_options(CLI::App& app, Options& options) {
  const char* group = "Text";
  app.add_option("--chat", options.chat, "Chat markup: auto, none, llama3, qwen, llama2 or harmony")
      ->check(CLI::IsMember({"auto", "none", "llama3", "qwen", "llama2", "harmony"}))
      ->capture_default_str()
      ->group(group);
  app.add_option_function<std::string>(
         "--query-prefix", [&options](const std::string& text) { options.query_prefix = text; },
         "Text between context and query; by default a blank line where chat markup is written, "
         "and "
         "nothing elsewhere")
      ->group(group);
  app.add_option("--special-tokens", options.special_tokens,
                 "Special tokens in the input: text, parse, or auto (parse in the published tool's "
                 "records)")
      ->check(CLI::IsMember({"auto", "text", "parse"}))
      ->capture_default_str()
      ->group(group);
}

void add_chat_options(CLI::App& app, Options& options) {
  const char* group = "Text";
  app.add_option("--thinking", options.thinking,
                 "What stands between <think> and </think>: text (of the answer), keep (apart, as "
                 "reasoning), drop, or off (the template is told so)")
      ->check(CLI::IsMember({"text", "keep", "drop", "off"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--question-marker", options.question_marker,
                 "In the requests of a batch file, the question begins where this text stands last")
      ->group(group);
}

void add_answer_options(CLI::App& app, Options& options) {
  const char* group = "Answers";
  app.add_option("--max-new-tokens", options.max_new_tokens,
                 "Longest answer, unless a query says otherwise")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--stop", options.stop, "Text that ends an answer; may be repeated")
      ->allow_extra_args(false)  // else [INST] would count as a list
      ->group(group);
  app.add_option("--temperature", options.temperature, "0 = greedy")
      ->check(between(0, 100))
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-p", options.top_p,
                 "Sample from the likeliest tokens with this much probability")
      ->check(between(0, 1))
      ->capture_default_str()
      ->group(group);
  app.add_option("--seed", options.seed, "Seed of the random draws")
      ->check(CLI::Range(std::uint64_t{0}, std::uint64_t{INT64_MAX}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--logprobs", options.logprobs, "Add the first new token's top k logits")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str()
      ->group(group);
  app.add_option("--thinking-tokens", options.thinking_tokens,
                 "End the thinking behind this many tokens; 0 = never")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--output-format", options.output_format,
                 "starattn, or star-attention (the published tool's fields)")
      ->check(CLI::IsMember({"starattn", "star-attention"}))
      ->capture_default_str()
      ->group(group);
  app.add_flag("--overwrite", options.overwrite, "Replace an output made with other settings")
      ->group(group);
  app.add_flag("--strict", options.strict, "Stop at the first bad input line")->group(group);
}

void add_form_options(CLI::App& app, Options& options) {
  const char* group = "Answers";
  app.add_option("--schema", options.schema,
                 "Answers are JSON that the JSON schema in this file describes")
      ->group(group);
  app.add_option("--regex", options.regex, "Answers match this regular expression as a whole")
      ->allow_extra_args(false)  // else a class in brackets would count as a list
      ->group(group);
  app.add_option("--choice", options.choice,
                 "Answers are one of these texts: A,B,C; or one each time, commas and all")
      ->group(group);
}

void add_device_options(CLI::App& app, Options& options) {
  const char* group = "Machine";
  app.add_option("--device", options.device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--dtype", options.dtype, "Compute type: auto, f32 (CPU) or bf16 (CUDA)")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--threads", options.threads,
                 "Threads a rank; 0 = its share of the cores it may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str()
      ->group(group);
}

void add_precision_options(CLI::App& app, Options& options) {
  app.add_option("--weights", options.weights,
                 "auto (as they are in the files), or fp8: made of wider ones while they load")
      ->check(CLI::IsMember({"auto", "fp8"}))
      ->capture_default_str()
      ->group("Machine");
  app.add_option(
         "--activations", options.activations,
         "What phase 1 multiplies FP8 weights with: bf16 (the compute type), or fp8, which is "
         "faster on a GPU")
      ->check(CLI::IsMember({"bf16", "fp8"}))
      ->capture_default_str()
      ->group("Machine");
  app.add_option("--kv-dtype", options.kv_dtype,
                 "Keys and values of a context: auto (the compute type), or fp8 (half of bf16)")
      ->check(CLI::IsMember({"auto", "fp8"}))
      ->capture_default_str()
      ->group("Machine");
}

void add_group_options(CLI::App& app, Options& options) {
  app.add_option(
         "--ranks-per-document", options.ranks_per_document,
         "Ranks in a group; each group works on a document of its own. 0 = all ranks in one group")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->group("Machine");
}

void add_kv_memory_options(CLI::App& app, Options& options) {
  app.add_option("--kv-memory", options.kv_memory,
                 "Encoded blocks of a GPU: device, host (pinned), or auto (host where they do not "
                 "fit)")
      ->check(CLI::IsMember({"auto", "device", "host"}))
      ->capture_default_str()
      ->group("Machine");
}

void add_weight_memory_options(CLI::App& app, Options& options) {
  app.add_option("--weight-memory", options.weight_memory,
                 "Weights of a GPU that shares them with no other: device, host (pinned, fetched "
                 "layer by layer), or auto (host where they do not fit)")
      ->check(CLI::IsMember({"auto", "device", "host"}))
      ->capture_default_str()
      ->group("Machine");
}

void add_query_rank_options(CLI::App& app, Options& options) {
  const char* group = "Machine";
  app.add_option("--query-ranks", options.query_ranks,
                 "Who runs the queries: 1 rank of a group, or all")
      ->check(CLI::IsMember({"1", "all"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--merge", options.merge,
                 "How partials meet: gather, or tree for hundreds of ranks")
      ->check(CLI::IsMember({"gather", "tree"}))
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--shard-weights", options.shard_weights,
         "Each rank of a node reads its share of the weights in phase 2, and a GPU keeps no "
         "more: on, off, or auto (on where GPUs reach each other's memory)")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str()
      ->group(group);
  app.add_option(
         "--transport", options.transport,
         "How ranks of a node exchange rows: peer (shares of weights, from GPU to GPU), host "
         "(through the node's memory), mpi (as messages, as between nodes), or auto")
      ->check(CLI::IsMember({"auto", "peer", "host", "mpi"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--lookup", options.lookup,
                 "Tokens that a step may try beside the next one, found in the document: answers "
                 "that quote it take fewer steps, and no answer changes. 0 = none, auto = up to 7, "
                 "fewer where they fail")
      ->check(CLI::IsMember({"auto"}) | CLI::Range(0, 31))
      ->capture_default_str()
      ->group(group);
}

void add_progress_options(CLI::App& app, Options& options) {
  const char* group = "Log";
  app.add_option("--progress-file", options.progress_file,
                 "Keep a JSON file of where the run stands, replaced every few seconds")
      ->group(group);
  app.add_option("--metrics-file", options.metrics_file,
                 "The same for Prometheus: NAME.prom in node_exporter's textfile directory")
      ->group(group);
}

void declare_progress_files(const Options& options, FilePurposes& files) {
  files.writes("--progress-file", options.progress_file);
  files.writes("--metrics-file", options.metrics_file);
}

void add_trace_options(CLI::App& app, Options& options, bool has_profile_file) {
  const char* group = "Log";
  app.add_flag("--profile", options.profile,
               "Say where time went: each operation with its rate, each rank, each kind of message")
      ->group(group);
  if (has_profile_file)
    app.add_option("--profile-file", options.profile_file, "The same as JSON, in this file")
        ->group(group);
  app.add_option("--machine", options.machine,
                 "A machine file of bench --calibrate: what --profile compares rates with")
      ->group(group);
  app.add_option("--trace", options.trace,
                 "Write a Chrome trace of every rank to this file, for ui.perfetto.dev")
      ->group(group);
}

void declare_trace_files(const Options& options, FilePurposes& files) {
  files.reads("--machine", options.machine);
  files.writes("--profile-file", options.profile_file);
  files.writes("--trace", options.trace);
}

}  // namespace starattn
