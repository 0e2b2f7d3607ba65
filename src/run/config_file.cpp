// SPDX-License-Identifier: Apache-2.0
#include "run/config_file.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <vector>

namespace starattn {
namespace {

// CLI11 looks for a key in the command that its parents name, and a plain key names none.
class CommandConfig : public CLI::ConfigTOML {
 public:
  explicit CommandConfig(const CLI::App& parser) : parser_(parser) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> read = CLI::ConfigTOML::from_config(input);
    if (parser_.get_subcommands().empty()) return {};  // which the parser refuses by itself
    std::set<std::string> seen;
    for (CLI::ConfigItem& item : read) {
      if (!item.parents.empty())
        refuse(item.parents.front(),
               "sections are not known here; expected lines such as block-size = 4096");
      if (!seen.insert(item.name).second)
        refuse(item.name, "is there twice; several values make one list: [\"one\", \"two\"]");
      item.parents = parents_of(item.name);
    }
    return read;
  }

 private:
  std::vector<std::string> parents_of(const std::string& key) const {
    const CLI::App* command = &parser_;
    std::vector<std::string> names;
    while (!command->get_subcommands().empty()) {
      command = command->get_subcommands().front();
      names.push_back(command->get_name());
    }
    const std::string option = "--" + key;
    if (command->get_option_no_throw(option)) return names;
    if (parser_.get_option_no_throw(option)) return {};
    const std::string line = fmt::format("starattn {}", fmt::join(names, " "));
    refuse(key, fmt::format("is no option of '{0}'; '{0} --help' shows them", line));
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& why) const {
    throw CLI::ConfigError(
        fmt::format("--config {}: {}: {}", parser_.get_config_ptr()->results().back(), key, why));
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
