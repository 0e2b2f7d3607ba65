// SPDX-License-Identifier: Apache-2.0
#include "run/config_file.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/text_source.h"
#include "run/config_text.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 24;

// CLI11 looks for a key in the command that its parents name, and a plain key names none.
class CommandConfig : public CLI::Config {
 public:
  explicit CommandConfig(const CLI::App& parser) : parser_(parser) {}

  std::vector<CLI::ConfigItem> from_config(std::istream&) const override {
    const std::string name = parser_.get_config_ptr()->results().back();
    if (parser_.get_subcommands().empty()) return {};  // which the parser refuses by itself
    std::vector<CLI::ConfigItem> read;
    std::map<std::string, int> line_of;
    for (const ConfigEntry& entry : parse_config(read_text(name, kMaxConfigBytes), name)) {
      const auto [first, is_new] = line_of.emplace(entry.key, entry.line);
      if (!is_new)
        refuse(entry, name,
               fmt::format("is there twice, first in line {}; several values make one list: "
                           "[\"one\", \"two\"]",
                           first->second));
      CLI::ConfigItem item;
      item.parents = parents_of(entry, name);
      item.name = entry.key;
      item.inputs = entry.values;
      if (!item.inputs.empty()) read.push_back(std::move(item));
    }
    return read;
  }

  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }

 private:
  std::vector<std::string> parents_of(const ConfigEntry& entry, const std::string& name) const {
    const CLI::App* command = &parser_;
    std::vector<std::string> names;
    while (!command->get_subcommands().empty()) {
      command = command->get_subcommands().front();
      names.push_back(command->get_name());
    }
    const CLI::Option* option = command->get_option_no_throw("--" + entry.key);
    const bool is_common = option == nullptr;
    if (is_common) option = parser_.get_option_no_throw("--" + entry.key);
    if (option == nullptr || !option->get_configurable()) {
      const std::string line = fmt::format("starattn {}", fmt::join(names, " "));
      refuse(entry, name, fmt::format("is no option of '{0}'; '{0} --help' shows them", line));
    }
    if (entry.is_bare && option->get_delimiter() == '\0' &&
        entry.values.front().find(',') != std::string::npos)
      refuse(entry, name,
             "text with commas goes in double quotes; several values make a list: [\"one\", "
             "\"two\"]");
    return is_common ? std::vector<std::string>() : names;
  }

  [[noreturn]] static void refuse(const ConfigEntry& entry, const std::string& name,
                                  const std::string& why) {
    fail(Exit::usage, "--config {}:{}: {}: {}", name, entry.line, entry.key, why);
  }

  const CLI::App& parser_;
};

}  // namespace

void add_config_option(CLI::App& parser) {
  parser.set_config("--config", "", "Read options from a file of lines such as block-size = 4096")
      ->type_name("FILE");
  parser.config_formatter(std::make_shared<CommandConfig>(parser));
}

}  // namespace starattn
