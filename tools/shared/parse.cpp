#include "shared/parse.hpp"

#include <charconv>

#include "shared/conversations.hpp"

namespace tool {

CLI::Option* add_model(CLI::App& app, std::string& path) { return app.add_option("MODEL", path, readable_models)->required(); }

CLI::Option* add_tokenizer(CLI::App& app, std::string& path) {
  return app.add_option("--tokenizer", path, "Tokenizer of a llama2.c checkpoint; default: beside it")->type_name("FILE");
}

CLI::Option* add_threads(CLI::App& app, anybit::Index& threads) {
  const auto possible = [](const std::string& text) {
    int n = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error == std::errc() && end == text.data() + text.size() && 0 <= n && n <= 1024) return std::string();
    return text + " threads: give 1 to 1024, or 0 for all of the machine";
  };
  return app.add_option("--threads", threads, "Default: as many as the machine runs at once. Results do not depend on it")
      ->type_name("N")
      ->check(possible);
}

CLI::Option* add_chat_template(CLI::App& app, std::string& name) {
  return app.add_option("--template", name, "How conversations are written down; default: as the model's own template does")
      ->check(CLI::IsMember(chat_template_names()));
}

CLI::Option* add_parse_special(CLI::App& app, bool& parse_special, const std::string& what) {
  return app.add_flag("--parse-special", parse_special, "Names of control tokens in " + what + " are these tokens");
}

CLI::Option* add_expert_share(CLI::App& app, float& share) {
  return app
      .add_option("--expert-share", share,
                  "Experts that saw a smaller share of the calibration tokens are rounded to nearest, and reported")
      ->type_name("SHARE")
      ->check(CLI::Range(0.f, 1.f))
      ->capture_default_str();
}

CLI::Option* add_int8_activations(CLI::App& app, bool& int8_activations) {
  return app.add_flag("--int8-activations", int8_activations,
                      "Packed weights multiply with activations rounded to 8 bits: faster");
}

CLI::Option* add_json(CLI::App& app, std::string& path, const std::string& what, const std::string& instead) {
  return app.add_option("--json", path, "Write " + what + " here; - is standard output, in place of " + instead)
      ->type_name("FILE");
}

}  // namespace tool
