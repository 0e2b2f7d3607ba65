// SPDX-License-Identifier: Apache-2.0
// checkpoints: what a directory of saved documents holds, giving its space back, and documents as
// single files.
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "base/json.h"
#include "base/text.h"
#include "checkpoint/archive.h"
#include "checkpoint/prune.h"
#include "command/commands.h"

namespace starattn {
namespace {

struct CheckpointsOptions {
  std::string directory;
  bool incomplete = false;
  std::string older_than;
  std::string keep_newest;
  bool dry_run = false;
  bool json = false;
  std::string key;
  std::string file;
};

constexpr std::size_t kShownKeyDigits = 12;
constexpr std::size_t kShownName = 20;  // bytes

// A mistyped name must not look like an empty store.
CheckpointStore open_store(const std::string& directory) {
  std::error_code error;
  const std::filesystem::directory_iterator readable(directory, error);
  if (error) fail(Exit::no_input, "cannot read directory {}: {}", directory, error.message());
  return CheckpointStore(directory);
}

std::string short_key(const DocumentSummary& document) {
  return document.key.hex().substr(0, kShownKeyDigits);
}

std::string state_of(const DocumentSummary& document) {
  std::string state = document.complete()        ? "complete"
                      : document.problem.empty() ? "incomplete"
                                                 : "unreadable";
  if (!KernelLock::is_free(document.directory + "/" + kInUseName)) state += ", in use";
  return state;
}

// Of a time in seconds since 1970; 0: unknown.
std::string age_of(std::int64_t then, std::int64_t now) {
  if (then == 0) return "?";
  const std::int64_t age = std::max<std::int64_t>(now - then, 0);
  return age < 60 ? fmt::format("{} s", age) : human_seconds(static_cast<double>(age));
}

void print_row(const DocumentSummary& document, std::int64_t now) {
  const DocumentInfo& info = document.info;
  const bool known = document.problem.empty();
  const auto number = [&](std::int64_t n) { return known ? with_commas(n) : "?"; };
  std::cout << fmt::format(
      "{:<14}{:<22}{:>12}{:>12}{:>12}{:>12}{:>7}  {:<5}{:>12}{:>13}{:>13}  {}\n",
      short_key(document),
      document.name.empty() ? "?" : std::string(first_characters(document.name, kShownName)),
      number(info.n_tokens),
      known ? fmt::format("{}/{}", document.n_blocks_present, info.n_blocks) : "?",
      number(info.block_size), number(info.anchor_size), number(info.reach),
      known ? name_of(info.kv_dtype) : "?", human_bytes(document.n_bytes),
      age_of(document.last_written_unix, now), age_of(document.last_used_unix, now),
      state_of(document));
}

// Times are seconds since 1970, null where unknown; of an unreadable document only what its folder
// says.
Json to_json(const DocumentSummary& document) {
  const auto time = [](std::int64_t unix) { return unix == 0 ? Json(nullptr) : Json(unix); };
  Json json;
  json["key"] = document.key.hex();
  json["state"] = state_of(document);
  json["problem"] = document.problem.empty() ? Json(nullptr) : Json(document.problem);
  json["bytes"] = document.n_bytes;
  json["last_written"] = time(document.last_written_unix);
  json["last_used"] = time(document.last_used_unix);
  json["document"] = document.name.empty() ? Json(nullptr) : Json(document.name);
  if (!document.problem.empty()) return json;
  const DocumentInfo& info = document.info;
  json["tokens"] = info.n_tokens;
  json["blocks"] = info.n_blocks;
  json["blocks_saved"] = document.n_blocks_present;
  json["block_size"] = info.block_size;
  json["anchor_size"] = info.anchor_size;
  json["reach"] = info.reach;
  json["plan"] = info.plan;
  json["kv_dtype"] = name_of(info.kv_dtype);
  return json;
}

Exit list_as_json(const std::vector<DocumentSummary>& documents) {
  Json json = {{"schema", "starattn-checkpoints-1"}, {"documents", Json::array()}};
  for (const DocumentSummary& document : documents) json["documents"].push_back(to_json(document));
  std::cout << to_line(json) << "\n";
  return Exit::ok;
}

Exit list(const CheckpointsOptions& options) {
  std::vector<DocumentSummary> documents = open_store(options.directory).list();
  std::ranges::stable_sort(documents, std::ranges::greater{}, &DocumentSummary::last_written_unix);
  if (options.json) return list_as_json(documents);
  const std::int64_t now = std::time(nullptr);
  std::uint64_t n_bytes = 0;
  if (!documents.empty()) {
    std::cout << fmt::format(
        "{:<14}{:<22}{:>12}{:>12}{:>12}{:>12}{:>7}  {:<5}{:>12}{:>13}{:>13}  {}\n", "KEY",
        "DOCUMENT", "TOKENS", "BLOCKS", "BLOCK SIZE", "ANCHOR", "REACH", "DTYPE", "SIZE", "AGE",
        "USED", "STATE");
  }
  for (const DocumentSummary& document : documents) {
    print_row(document, now);
    n_bytes += document.n_bytes;
  }
  for (const DocumentSummary& document : documents) {
    if (!document.problem.empty())
      std::cout << fmt::format("{}: {}\n", short_key(document), one_line(document.problem));
  }
  std::cout << fmt::format("{} document(s), {}\n", documents.size(), human_bytes(n_bytes));
  return Exit::ok;
}

void print_decision(const char* what, const PruneResult::Document& document) {
  std::cout << fmt::format("{:<14}{:<14}{:>12}  {}\n", what, short_key(document.summary),
                           human_bytes(document.summary.n_bytes), one_line(document.reason));
}

Exit prune_store(const CheckpointsOptions& options) {
  PruneRules rules;
  rules.incomplete = options.incomplete;
  rules.dry_run = options.dry_run;
  if (!options.older_than.empty())
    rules.older_than_seconds = parse_duration(options.older_than, "--older-than");
  if (!options.keep_newest.empty())
    rules.keep_newest_bytes = parse_bytes(options.keep_newest, "--keep-newest");
  const PruneResult result = prune(open_store(options.directory), rules, std::time(nullptr));
  for (const auto& document : result.removed)
    print_decision(options.dry_run ? "would remove" : "removed", document);
  for (const auto& document : result.kept) print_decision("kept", document);
  for (const auto& document : result.failed) print_decision("FAILED", document);
  std::cout << fmt::format("{} document(s) {}, {} {}", result.removed.size(),
                           options.dry_run ? "would go" : "removed",
                           human_bytes(result.freed_bytes), options.dry_run ? "to free" : "freed");
  if (result.n_temporaries > 0)
    std::cout << fmt::format("; {} leftover file(s) removed", result.n_temporaries);
  std::cout << "\n" << std::flush;
  if (result.failed.empty()) return Exit::ok;
  fail(Exit::io, "{}: {} document(s) could not be looked into or removed, the first because: {}",
       options.directory, result.failed.size(), result.failed.front().reason);
}

// By its key, or as many digits as only one has.
Digest key_of(const CheckpointStore& store, const std::string& digits) {
  std::vector<Digest> keys;
  for (const DocumentSummary& document : store.list())
    if (!digits.empty() && document.key.hex().starts_with(digits)) keys.push_back(document.key);
  if (keys.size() != 1) {
    fail(Exit::no_input,
         "{}: {} document(s) whose key begins with '{}', expected one: 'starattn "
         "checkpoints list' shows the keys",
         store.directory(), keys.size(), one_line(digits.substr(0, 80)));
  }
  return keys.front();
}

Exit export_one(const CheckpointsOptions& options) {
  const CheckpointStore store = open_store(options.directory);
  const Digest key = key_of(store, options.key);
  export_document(store, key, options.file);
  std::cout << fmt::format("{} is in {}\n", key.hex(), options.file);
  return Exit::ok;
}

Exit import_one(const CheckpointsOptions& options) {
  const Imported imported = import_document(CheckpointStore(options.directory), options.file);
  std::cout << fmt::format("{}: {} block(s), {} of them new\n", imported.key.hex(),
                           imported.n_blocks, imported.n_new);
  return Exit::ok;
}

CLI::App* add_export(CLI::App& parent, CheckpointsOptions& options) {
  CLI::App* app = parent.add_subcommand("export", "Write one document to a file, a tar archive");
  app->add_option("dir", options.directory, "The --checkpoint-dir of a run")->required();
  app->add_option("key", options.key, "Its key, or the first digits of it")->required();
  app->add_option("file", options.file, "The file, which must not be there")->required();
  return app;
}

CLI::App* add_import(CLI::App& parent, CheckpointsOptions& options) {
  CLI::App* app = parent.add_subcommand("import", "Take what export wrote into a directory");
  app->add_option("dir", options.directory,
                  "The --checkpoint-dir of a run; made where it is missing")
      ->required();
  app->add_option("file", options.file, "The file")->required();
  return app;
}

CLI::App* add_list(CLI::App& parent, CheckpointsOptions& options) {
  CLI::App* app = parent.add_subcommand("list", "Show every document, the newest first");
  app->add_option("dir", options.directory, "The --checkpoint-dir of a run")->required();
  app->add_flag("--json", options.json, "Print one line of JSON instead");
  return app;
}

CLI::App* add_prune(CLI::App& parent, CheckpointsOptions& options) {
  CLI::App* app = parent.add_subcommand(
      "prune",
      "Remove documents that any rule names, never one in use; without a rule, only what dead "
      "writers left");
  app->add_option("dir", options.directory, "The --checkpoint-dir of a run")->required();
  app->add_flag("--incomplete", options.incomplete, "Documents with blocks missing, or unreadable");
  app->add_option("--older-than", options.older_than, "Last written longer ago: 12h, 7d, 2w");
  app->add_option("--keep-newest", options.keep_newest,
                  "All but the newest that fit this size together: 100GiB");
  app->add_flag("--dry-run", options.dry_run, "Say what would go, remove nothing");
  return app;
}

}  // namespace

Command add_checkpoints(CLI::App& parser) {
  auto options = std::make_shared<CheckpointsOptions>();
  CLI::App* app = parser.add_subcommand(
      "checkpoints", "List saved documents, remove some, or carry one elsewhere");
  app->require_subcommand(1);
  const CLI::App* listing = add_list(*app, *options);
  const CLI::App* exporting = add_export(*app, *options);
  const CLI::App* importing = add_import(*app, *options);
  add_prune(*app, *options);
  const auto run = [=] {
    if (listing->parsed()) return list(*options);
    if (exporting->parsed()) return export_one(*options);
    return importing->parsed() ? import_one(*options) : prune_store(*options);
  };
  return {app, run, [] { return false; }};
}

}  // namespace starattn
