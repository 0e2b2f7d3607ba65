// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <spdlog/formatter.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"

namespace starattn::log {
namespace {

struct State {
  Format format = Format::text;
  bool is_terminal = false;
  bool is_live_line_shown = false;
  const nlohmann::ordered_json* fields = nullptr;  // of the event that is being logged
};

State& state() {
  static State instance;
  return instance;
}

constexpr const char* kClearLine = "\r\x1b[K";

// {"time": seconds since the epoch, "level": "info", "rank": "rank 3", "message": "...", and an
// event's name and fields}
class JsonFormatter : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string prefix) : prefix_(std::move(prefix)) {}

  void format(const spdlog::details::log_msg& msg, spdlog::memory_buf_t& out) override {
    nlohmann::ordered_json line;
    line["time"] = std::chrono::duration<double>(msg.time.time_since_epoch()).count();
    const auto level = spdlog::level::to_string_view(msg.level);
    line["level"] = std::string(level.data(), level.size());
    if (!prefix_.empty()) line["rank"] = prefix_;
    line["message"] = std::string(msg.payload.data(), msg.payload.size());
    if (state().fields) line.update(*state().fields);
    const auto text =
        line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    out.append(text.data(), text.data() + text.size());
  }

  std::unique_ptr<formatter> clone() const override {
    return std::make_unique<JsonFormatter>(prefix_);
  }

 private:
  std::string prefix_;
};

// The message, as far as a terminal may see it.
class PrintableMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& msg, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string text = printable({msg.payload.data(), msg.payload.size()});
    out.append(text.data(), text.data() + text.size());
  }

  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<PrintableMessage>();
  }
};

// Makes room where the live line stands.
class LiveLineEraser : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg&, const std::tm&, spdlog::memory_buf_t& out) override {
    if (!std::exchange(state().is_live_line_shown, false)) return;
    out.append(kClearLine, kClearLine + std::strlen(kClearLine));
  }

  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<LiveLineEraser>();
  }
};

std::unique_ptr<spdlog::formatter> text_formatter(const Setup& setup) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<PrintableMessage>('v');
  formatter->add_flag<LiveLineEraser>('K');
  formatter->set_pattern(std::string("%K") + (setup.timed ? "%H:%M:%S " : "") +
                         "%^%l%$: " + (setup.prefix.empty() ? "" : setup.prefix + ": ") + "%v");
  return formatter;
}

}  // namespace

void setup(const Setup& setup) {
  const char* no_color = std::getenv("NO_COLOR");
  state().format = setup.format;
  state().is_terminal = isatty(STDERR_FILENO) != 0;
  const bool color = state().is_terminal && !(no_color && *no_color);
  spdlog::sink_ptr sink;
  if (color && setup.format == Format::text) {
    sink = std::make_shared<spdlog::sinks::stderr_color_sink_st>();
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
  }
  auto logger = std::make_shared<spdlog::logger>("starattn", sink);
  if (setup.format == Format::json) {
    logger->set_formatter(std::make_unique<JsonFormatter>(setup.prefix));
  } else {
    logger->set_formatter(text_formatter(setup));
  }
  logger->set_level(setup.quiet ? spdlog::level::err : spdlog::level::info);
  spdlog::set_default_logger(logger);
}

void event(const char* name, const nlohmann::ordered_json& fields, const std::string& message) {
  nlohmann::ordered_json all = {{"event", name}};
  all.update(fields);
  state().fields = &all;
  spdlog::info("{}", message);
  state().fields = nullptr;
}

bool is_json() {
  return state().format == Format::json;
}

bool has_live_line() {
  return state().is_terminal && !is_json();
}

void show_live_line(const std::string& text) {
  if (!has_live_line() || (text.empty() && !state().is_live_line_shown)) return;
  struct winsize window {};
  const bool is_known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1;
  const std::size_t width = is_known ? window.ws_col - 1U : 79;
  const std::string shown = one_line(text);
  std::fprintf(stderr, "%s%s", kClearLine, std::string(first_characters(shown, width)).c_str());
  std::fflush(stderr);
  state().is_live_line_shown = !text.empty();
}

}  // namespace starattn::log
