// SPDX-License-Identifier: Apache-2.0
#include "command/manual.h"

#include <filesystem>

#include "base/file.h"
#include "command/commands.h"
#include "version.h"

namespace starattn {
namespace {

constexpr const char* kProgram = "starattn";

constexpr const char* kExitStatus =  // of every command
    ".SH EXIT STATUS\n"
    ".TP\n0\ndone\n"
    ".TP\n2\nwrong options\n"
    ".TP\n3\neval \\-\\-baseline: worse than stored\n"
    ".TP\n65\na file or a line of it does not hold what it must\n"
    ".TP\n66\nan input is missing\n"
    ".TP\n69\ndevice, memory or MPI are unfit for the job\n"
    ".TP\n70\na bug in starattn\n"
    ".TP\n73\nan output cannot be created\n"
    ".TP\n74\nreading or writing failed\n"
    ".TP\n75\nstopped early with everything saved: run the same command again\n";

// words: what may stand where the cursor is. Where none of them does, bash offers files.
constexpr const char* kCompletionBegin = R"(# bash completion for starattn
_starattn() {
  local command='' word words=''
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
    case $word in -*) ;; *) command=$word; break ;; esac
  done
  case $command:$previous in
)";
constexpr const char* kCompletionBetween = R"(  esac
  if [ -z "$words" ]; then
    case $command in
)";
constexpr const char* kCompletionEnd = R"(    esac
    [[ $current = -* ]] || words=$(printf '%s\n' $words | grep -v '^-')
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _starattn starattn
)";

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return !option->get_group().empty(); });
}

// Text as roff has to see it.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  if (out.starts_with('.') || out.starts_with('\'')) out.insert(0, "\\&");
  return out;
}

// "a", "b" of an option that takes TEXT:{a,b}.
std::vector<std::string> words_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t begin = type.find('{');
  const std::size_t end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return CLI::detail::split(type.substr(begin + 1, end - begin - 1), ',');
}

// What stands behind the option's name: "star|ring|dense", "int".
std::string value_of(const CLI::Option& option) {
  if (option.get_items_expected_max() == 0) return "";
  if (const auto words = words_of(option); !words.empty()) return CLI::detail::join(words, "|");
  const std::string type = option.get_type_name();
  return CLI::detail::to_lower(type.substr(0, type.find(':')));
}

std::string names_of(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  return names.empty() ? option.get_name(/*positional=*/true) : CLI::detail::join(names, ", ");
}

std::string entry(const CLI::Option& option) {
  std::string out = ".TP\n\\fB" + roff(names_of(option)) + "\\fR";
  if (const std::string value = value_of(option); !value.empty() && !option.get_positional())
    out += " \\fI" + roff(value) + "\\fR";
  out += "\n" + roff(option.get_description());
  if (option.get_required()) out += "; required";
  if (const std::string by_default = option.get_default_str(); !by_default.empty())
    out += "; by default " + roff(by_default);
  return out + "\n";
}

std::string options_section(const CLI::App& app) {
  std::string out;
  for (const std::string& group : app.get_groups()) {
    std::string entries;
    for (const CLI::Option* option : options_of(app))
      if (option->get_group() == group) entries += entry(*option);
    if (entries.empty()) continue;
    out += group == "Options" ? entries : ".SS " + roff(group) + "\n" + entries;
  }
  return out;
}

std::string synopsis(const CLI::App& app) {
  std::string line = kProgram;
  if (app.get_parent()) line += " " + app.get_name();
  if (!commands_of(app).empty()) return line + " COMMAND [OPTIONS]";
  line += " [OPTIONS]";
  for (const CLI::Option* option : options_of(app))
    if (option->get_positional()) line += " " + option->get_name(/*positional=*/true);
  return line;
}

std::string commands_section(const CLI::App& app) {
  std::string out;
  for (const CLI::App* command : commands_of(app)) {
    out += ".TP\n\\fB" + roff(command->get_name()) + "\\fR\n" + roff(command->get_description());
    out += "\n";
  }
  return out;
}

// "  run) echo '--model --input ...' ;;"
std::string completion_case(const std::string& pattern, const std::string& words) {
  return "    " + pattern + ") words='" + words + "' ;;\n";
}

std::string long_names(const CLI::App& app) {
  std::string names;
  for (const CLI::Option* option : options_of(app))
    for (const std::string& name : option->get_lnames()) names += "--" + name + " ";
  return names;
}

}  // namespace

std::string manual_name(const CLI::App& app) {
  return app.get_parent() ? std::string(kProgram) + "-" + app.get_name() : kProgram;
}

std::string manual_page(const CLI::App& app) {
  const std::string name = manual_name(app);
  const auto commands = commands_of(app);
  std::string out = ".TH " + name + " 1 \"\" \"starattn " STARATTN_VERSION "\" \"starattn\"\n";
  out += ".SH NAME\n" + roff(name) + " \\- " + roff(app.get_description()) + "\n";
  out += ".SH SYNOPSIS\n.B " + roff(synopsis(app)) + "\n";
  if (!app.get_parent()) {
    out += ".SH COMMANDS\n" + commands_section(app);
    return out + ".SH OPTIONS\n" + options_section(app) + kExitStatus;
  }
  if (commands.empty()) out += ".SH OPTIONS\n" + options_section(app);
  for (const CLI::App* command : commands) {
    out += ".SH " + roff(command->get_name()) + "\n" + roff(command->get_description()) + "\n";
    out += options_section(*command);
  }
  return out + ".PP\n" + roff(app.get_parent()->get_footer()) +
         "\n.SH SEE ALSO\n.BR starattn (1)\n";
}

std::string bash_completion(const CLI::App& parser) {
  std::string words;
  std::string names;
  std::string commands;
  for (const CLI::App* command : commands_of(parser)) {
    commands += command->get_name() + " ";
    std::string all = long_names(*command) + long_names(parser);
    for (const CLI::App* below : commands_of(*command))
      all += below->get_name() + " " + long_names(*below);
    names += completion_case(command->get_name(), all);
    for (const CLI::Option* option : options_of(*command)) {
      if (const auto values = words_of(*option); !values.empty())
        words += completion_case(command->get_name() + ":--" + option->get_lnames().front(),
                                 CLI::detail::join(values, " "));
    }
  }
  return kCompletionBegin + words + kCompletionBetween +
         completion_case("''", commands + long_names(parser)) + names + kCompletionEnd;
}

// The build calls it; its group hides it from help.
Command add_manual(CLI::App& parser) {
  auto folder = std::make_shared<std::string>();
  CLI::App* app = parser.add_subcommand("manual", "Write pages for man and completions for bash");
  app->group("");
  app->add_option("folder", *folder, "Where to write them; is made")->required();
  return {app,
          [folder, &parser] {
            std::filesystem::create_directories(*folder);
            std::vector<const CLI::App*> pages = commands_of(parser);
            pages.push_back(&parser);
            for (const CLI::App* page : pages)
              write_file_durably(*folder + "/" + manual_name(*page) + ".1", manual_page(*page));
            write_file_durably(*folder + "/starattn.bash", bash_completion(parser));
            return Exit::ok;
          },
          [] { return false; }};
}

}  // namespace starattn
