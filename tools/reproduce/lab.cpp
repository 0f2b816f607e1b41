#include "lab.hpp"

#include <algorithm>
#include <cmath>
#include <thread>

#include "packed_linears.hpp"
#include "shared/conversations.hpp"
#include "shared/text.hpp"

namespace reproduce {

using namespace anybit;
using model::SiblingGroup;

namespace {

constexpr Needs needs = Needs::abs_max | Needs::mean_abs | Needs::mean_square | Needs::hessian;

Index threads_of(const LabOptions& o) {
  return o.threads > 0 ? o.threads : std::max<Index>(1, static_cast<Index>(std::thread::hardware_concurrency()));
}

/// The papers' windows: as long as asked, or as the model and the text allow, every prediction counted.
Result<evaluate::Windows> windows_of(const model::Model& m, const std::string& file, const std::string& text,
                                     const std::string& name, Index wanted, Index window) {
  ANYBIT_TRY(std::vector<model::TokenId> ids, tool::domain_tokens(text, name, m.tokenizer, {{}, file}));
  if (static_cast<Index>(ids.size()) < wanted)
    return Error{ErrorCode::insufficient_data, name + ": has " + std::to_string(ids.size()) + " tokens, " +
                                                   std::to_string(wanted) + " are needed; give a longer text or ask for fewer"};
  ids.resize(static_cast<std::size_t>(wanted));
  return evaluate::gptq_windows(ids, std::min({window, wanted, m.decoder.config.context}));
}

Upstream upstream_of(const SiblingGroup& g) {
  return g.norm_gain ? Upstream::norm : g.upstream && g.producer.fan_out == 1 ? Upstream::linear : Upstream::nothing;
}

Measured summary(const std::vector<evaluate::TokenComparison>& tokens) {
  Measured m;
  for (const evaluate::TokenComparison& t : tokens) m.nll.push_back(t.nll);
  const evaluate::Perplexity p = evaluate::perplexity(m.nll);
  m.perplexity = p.value, m.plus_minus = p.plus_minus;
  std::vector<double> kl;
  for (const evaluate::TokenComparison& t : tokens) kl.push_back(t.kl);
  const evaluate::Estimate e = evaluate::estimate(kl);
  m.kl = e.value, m.kl_plus_minus = e.plus_minus;
  return m;
}

}  // namespace

Setting setting(std::string name, std::string description, Method method) {
  return {std::move(name), std::move(description),
          [method = std::move(method)](const Lab& lab) { return lab.change(lab.source(), method); }};
}

Lab::Lab(const LabOptions& options, std::size_t settings, tool::Progress& progress)
    : steps_(static_cast<double>(settings) + 4), progress_(progress), pool_(threads_of(options)), executor_(pool_) {}

Result<std::unique_ptr<Lab>> Lab::open(const LabOptions& options, std::size_t settings, tool::Progress& progress) {
  std::unique_ptr<Lab> lab(new Lab(options, settings, progress));
  lab->begin("loading " + options.model);
  model::LoadOptions load;
  load.tokenizer = options.tokenizer;
  ANYBIT_TRY(model::Model m, model::load_model(options.model, load));
  bool floats = true;
  model::for_each_linear(m.decoder, [&](const std::string&, const nn::Linear& l) { floats = floats && l.dense(); });
  if (!floats)
    return Error{ErrorCode::unsupported,
                 options.model + ": holds a model that is quantized already; give the file that it was made from"};
  ANYBIT_TRY(std::string evaluated, tool::read_text(options.evaluate));
  std::string calibrated;
  if (options.calibrate.empty()) {
    tool::TwoTexts halves = tool::cut_in_two(evaluated);
    evaluated = std::move(halves.calibrate);  // the first half
    calibrated = std::move(halves.evaluate);
  } else {
    ANYBIT_TRY(calibrated, tool::read_text(options.calibrate));
  }
  const std::string half = options.calibrate.empty() ? ", half of it" : "";
  ANYBIT_TRY(lab->windows_, windows_of(m, options.model, evaluated, options.evaluate + half, options.tokens, options.window));
  ANYBIT_TRY(lab->calibration_,
             windows_of(m, options.model, calibrated, (half.empty() ? options.calibrate : options.evaluate) + half,
                        options.calibration_tokens, options.window));
  lab->name_ = m.name;
  lab->end();
  ANYBIT_TRY(lab->source_, lab->calibrate(std::move(m.decoder)));
  lab->begin("running the float model");
  ANYBIT_TRY(lab->reference_, evaluate::reference_logits(lab->source_.decoder, lab->windows_, lab->executor_));
  std::vector<evaluate::TokenComparison> tokens;
  for (const double nll : lab->reference_.nll()) tokens.push_back({0, nll, nll, true});
  lab->float_model_ = summary(tokens);
  lab->end();
  if (!std::isfinite(lab->float_model_.perplexity))
    return Error{ErrorCode::not_finite, options.model + ": the float model's predictions are not finite; the file is damaged"};
  return lab;
}

Result<Source> Lab::calibrate(model::Decoder d) const {
  begin("calibrating");
  Source s{std::move(d), {}};
  s.stats = model::ModelStats(s.decoder, needs);
  for (Index i = 0; i < calibration_.count(); ++i) {
    ANYBIT_TRY(const Matrix hidden, s.stats.accumulate(s.decoder, calibration_.window(i), executor_));
    progress_.update(i + 1, calibration_.count());
  }
  end();
  return s;
}

Result<Changed> Lab::change(const Source& source, const Method& method) const {
  Changed out{source.decoder, 0};
  std::vector<SiblingGroup> groups = model::sibling_groups(out.decoder);
  std::vector<Status> status(groups.size(), Ok{});
  std::vector<double> bits(groups.size()), size(groups.size());
  executor_.parallel_for(static_cast<Index>(groups.size()), 1, [&](Index begin, Index end) {
    for (Index item = begin; item < end; ++item) {
      const auto i = static_cast<std::size_t>(item);
      SiblingGroup& g = groups[i];
      std::vector<ConstMatrix> weights;
      for (const model::NamedLinear& l : g.linears) {
        weights.push_back(l.linear->dense()->view());
        size[i] += static_cast<double>(l.linear->extents().size());
      }
      auto done = method(Group{!g.linears.front().clippable, upstream_of(g), weights, source.stats.at(g.id, Needs::none),
                               source.stats.at(g.id, Needs::hessian)});
      if (!done) {
        status[i] = in_context(done.error(), g.linears.front().name);
        continue;
      }
      bits[i] = done->bits;
      for (std::size_t k = 0; k < g.linears.size(); ++k)
        *g.linears[k].linear =
            g.linears[k].linear->with_weights(done->packed ? done->packed->linears[k] : nn::Linear(std::move(done->weights[k])));
      if (!done->input_scale.empty()) g.fold_into_norm(done->input_scale);
    }
  });
  double all_bits = 0, all = 0;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    ANYBIT_TRY_STATUS(status[i]);
    all_bits += bits[i], all += size[i];
  }
  out.bits_per_weight = all_bits / all;
  return out;
}

Result<Measured> Lab::measure(const Changed& changed) const {
  ANYBIT_TRY(const std::vector<evaluate::TokenComparison> tokens,
             evaluate::compare(reference_, changed.decoder, windows_, executor_));
  Measured m = summary(tokens);
  m.bits_per_weight = changed.bits_per_weight;
  return m;
}

}  // namespace reproduce
