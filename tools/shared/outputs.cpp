#include "outputs.hpp"

#include <csignal>
#include <cstdio>
#include <filesystem>

#include <nlohmann/json.hpp>

#include <anybit/io/atomic_write.hpp>

#include "command.hpp"

namespace tool {

using namespace anybit;

std::string to_json(const evaluate::EvaluationReport& report) {
  using nlohmann::ordered_json;
  ordered_json rows = ordered_json::array();
  for (const evaluate::ReportRow& r : report.rows)
    rows.push_back({{"recipe", r.recipe},
                    {"activations", r.activations},
                    {"bits_per_weight_linears", r.bits_per_weight_linears},
                    {"bits_per_weight_file", r.bits_per_weight_file},
                    {"bytes", r.bytes},
                    {"layer_error_mean", r.layer_error_mean},
                    {"layer_error_worst", r.layer_error_worst},
                    {"layer_error_worst_name", r.layer_error_worst_name},
                    {"perplexity", r.perplexity},
                    {"perplexity_ratio", r.perplexity_ratio},
                    {"kl_mean", r.kl_mean},
                    {"same_top_percent", r.same_top_percent},
                    {"prompt_tokens_per_s", r.prompt_tokens_per_s},
                    {"decode_tokens_per_s", r.decode_tokens_per_s},
                    {"quantize_s", r.quantize_s}});
  const ordered_json whole{{"model", report.model},
                           {"machine", report.machine},
                           {"calibration_tokens", report.calibration_tokens},
                           {"evaluation_tokens", report.evaluation_tokens},
                           {"rows", std::move(rows)}};
  return text_of(whole);
}

std::string text_of(const nlohmann::ordered_json& value) {
  return value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Status check_writable(const std::string& path) {
  if (path == "-") return Ok{};
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code failed;
  if (!folder.empty()) std::filesystem::create_directories(folder, failed);
  if (failed)
    return Error{ErrorCode::io, folder.string() + ": cannot be made a folder (" + failed.message() + "); choose another place"};
  ANYBIT_TRY(const io::AtomicFile probe, io::AtomicFile::create(path));
  static_cast<void>(probe);
  return Ok{};
}

Status write_text(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);  // run_command() checks
    return Ok{};
  }
  const Uninterrupted guard;
  ANYBIT_TRY(io::AtomicFile file, io::AtomicFile::create(path));
  ANYBIT_TRY_STATUS(file.write(std::string_view(text)));
  return file.commit();
}

int write_json(std::string_view command, const std::string& path, const nlohmann::ordered_json& value) {
  if (path.empty()) return success;
  const auto written = write_text(path, text_of(value));
  return written ? success : fail(command, cannot_write, written.error());
}

Uninterrupted::Uninterrupted() : interrupt_(std::signal(SIGINT, SIG_IGN)), terminate_(std::signal(SIGTERM, SIG_IGN)) {}
Uninterrupted::~Uninterrupted() {
  std::signal(SIGINT, interrupt_);
  std::signal(SIGTERM, terminate_);
}

}  // namespace tool
