// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <spdlog/formatter.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace starattn::log {
namespace {

// {"time": seconds since the epoch, "level": "info", "rank": "rank 3", "message": "..."}
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

std::unique_ptr<spdlog::formatter> text_formatter(const std::string& prefix) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<PrintableMessage>('v');
  formatter->set_pattern(prefix.empty() ? "%^%l%$: %v" : "%^%l%$: " + prefix + ": %v");
  return formatter;
}

}  // namespace

void setup(Format format, bool quiet, const std::string& prefix) {
  const char* no_color = std::getenv("NO_COLOR");
  const bool color = isatty(STDERR_FILENO) && !(no_color && *no_color);
  spdlog::sink_ptr sink;
  if (color && format == Format::text) {
    sink = std::make_shared<spdlog::sinks::stderr_color_sink_st>();
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
  }
  auto logger = std::make_shared<spdlog::logger>("starattn", sink);
  if (format == Format::json) {
    logger->set_formatter(std::make_unique<JsonFormatter>(prefix));
  } else {
    logger->set_formatter(text_formatter(prefix));
  }
  logger->set_level(quiet ? spdlog::level::err : spdlog::level::info);
  spdlog::set_default_logger(logger);
}

}  // namespace starattn::log
