#pragma once
// Directions, probes and interventions in a safetensors file. The metadata say of which model, template, point and position.
//
//   metadata                 format "anybit-steer", version "1", model, fingerprint, template, point, position, method, head_dim
//   block.B.vector, .center  F64 (width); .numbers F64: sign, threshold, explained, accuracy
//   block.B.probe            F64 (width + 1): weight, intercept; .probe.accuracy F64 (1)
//   shift.I.theta            F64 (head_dim); .place I64: block, head; .numbers F64: sigma, accuracy

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <charconv>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/io/safetensors.hpp>
#include <anybit/io/safetensors_writer.hpp>
#include <anybit/steer/intervention.hpp>
#include <anybit/steer/states.hpp>

namespace anybit::steer {
inline namespace ANYBIT_ABI {

struct BlockProbe {
  Index block = 0;
  Probe probe{};
  double accuracy = 0;  ///< on rows that it was not fitted on
};

struct SteeringFile {
  std::string model{};        ///< its name, for people
  std::string fingerprint{};  ///< model_fingerprint()
  std::string pattern{};      ///< the template of the stimuli
  std::string method{};       ///< "pca", "mean_difference", ...
  model::Point point = model::Point::residual;
  Index position = -1;
  std::vector<BlockDirection> directions{};
  std::vector<BlockProbe> probes{};
  Intervention intervention{};
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::steer

namespace anybit::steer {
inline namespace ANYBIT_CODE {

/// Writes a whole file or nothing.
inline Status save_steering(const std::string& path, const SteeringFile& s) {
  using io::detail::text;
  std::vector<io::TensorInfo> tensors;
  std::deque<std::vector<double>> kept;  // what the tensors point to
  std::deque<std::array<std::int64_t, 2>> places;
  const auto add = [&](std::string name, std::vector<double> values) {
    const std::vector<double>& v = kept.emplace_back(std::move(values));
    tensors.push_back(io::tensor_of<double>(std::move(name), {static_cast<Index>(v.size())}, v));
  };
  for (const BlockDirection& b : s.directions) {
    const Direction& d = b.direction;
    add(text("block.", b.block, ".vector"), d.vector);
    add(text("block.", b.block, ".center"), d.center);
    add(text("block.", b.block, ".numbers"), {d.sign, d.threshold, d.explained, b.accuracy});
  }
  for (const BlockProbe& p : s.probes) {
    std::vector<double> all = p.probe.weight;
    all.push_back(p.probe.intercept);
    add(text("block.", p.block, ".probe"), std::move(all));
    add(text("block.", p.block, ".probe.accuracy"), {p.accuracy});
  }
  for (std::size_t i = 0; i < s.intervention.heads.size(); ++i) {
    const HeadShift& h = s.intervention.heads[i];
    add(text("shift.", i, ".theta"), h.theta);
    add(text("shift.", i, ".numbers"), {h.sigma, h.accuracy});
    const auto& place = places.emplace_back(std::array<std::int64_t, 2>{h.block, h.head});
    tensors.push_back(io::tensor_of<std::int64_t>(text("shift.", i, ".place"), {2}, place));
  }
  return io::write_safetensors(path, tensors,
                               {{"format", "anybit-steer"},
                                {"version", "1"},
                                {"model", s.model},
                                {"fingerprint", s.fingerprint},
                                {"template", s.pattern},
                                {"point", std::string(model::name(s.point))},
                                {"position", std::to_string(s.position)},
                                {"method", s.method},
                                {"head_dim", std::to_string(s.intervention.head_dim)}});
}

namespace detail {

inline Result<Index> number_in(const io::SafetensorsFile& f, const std::string& path, const char* key) {
  const auto at = f.metadata().find(key);
  const std::string value = at == f.metadata().end() ? "" : at->second;
  Index n = 0;
  const auto [end, fault] = std::from_chars(value.data(), value.data() + value.size(), n);
  if (fault != std::errc{} || end != value.data() + value.size())
    return {ErrorCode::corrupt_data,
            io::detail::text(path, ": metadata ", key, " is ", io::detail::shown(value), ", no whole number: save it again")};
  return n;
}

/// Finite values, as many as `count` if that is not negative.
inline Result<std::vector<double>> values_of(const io::SafetensorsFile& f, const std::string& path, const std::string& name,
                                             Index count = -1) {
  ANYBIT_TRY(std::vector<double> v, f.read<double>(name));
  if (v.empty() || (count >= 0 && static_cast<Index>(v.size()) != count))
    return {ErrorCode::corrupt_data, io::detail::text(path, ": tensor ", io::detail::shown(name), " has ", v.size(),
                                                      " values: the file is damaged, save it again")};
  for (const double& x : v)
    if (!is_finite(x))
      return {ErrorCode::not_finite,
              io::detail::text(path, ": tensor ", io::detail::shown(name), " is not finite: read the directions again")};
  return v;
}

/// N of "block.N.vector", or -1.
inline Index block_in(std::string_view name, std::string_view suffix) {
  constexpr std::string_view prefix = "block.";
  if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() <= prefix.size() + suffix.size()) return -1;
  const std::string_view digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  Index n = 0;
  const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  return fault == std::errc{} && end == digits.data() + digits.size() ? n : -1;
}

}  // namespace detail

/// Blocks in rising order.
inline Result<SteeringFile> load_steering(const std::string& path) {
  using io::detail::text;
  ANYBIT_TRY(const io::SafetensorsFile f, io::SafetensorsFile::open(path));
  const auto meta = [&](const char* key) {
    const auto at = f.metadata().find(key);
    return at == f.metadata().end() ? std::string() : at->second;
  };
  if (meta("format") != "anybit-steer" || meta("version") != "1")
    return {ErrorCode::unsupported,
            text(path, ": format ", io::detail::shown(meta("format")), " version ", io::detail::shown(meta("version")),
                 ": only files of `anybit steer`, version 1, can be read")};
  SteeringFile s{
      .model = meta("model"), .fingerprint = meta("fingerprint"), .pattern = meta("template"), .method = meta("method")};
  bool known = false;
  for (std::size_t i = 0; i < model::point_names.size(); ++i)
    if (model::point_names[i] == meta("point")) s.point = static_cast<model::Point>(i), known = true;
  if (!known)
    return {ErrorCode::corrupt_data, text(path, ": metadata point is ", io::detail::shown(meta("point")), ": read it again")};
  ANYBIT_TRY(s.position, detail::number_in(f, path, "position"));
  ANYBIT_TRY(s.intervention.head_dim, detail::number_in(f, path, "head_dim"));

  std::map<Index, BlockDirection> directions;
  std::map<Index, BlockProbe> probes;
  std::size_t shifts = 0;
  for (const io::TensorInfo& t : f.tensors()) {
    if (const Index b = detail::block_in(t.name, ".vector"); b >= 0) {
      Direction d;
      ANYBIT_TRY(d.vector, detail::values_of(f, path, t.name));
      ANYBIT_TRY(d.center, detail::values_of(f, path, text("block.", b, ".center"), d.width()));
      ANYBIT_TRY(const std::vector<double> n, detail::values_of(f, path, text("block.", b, ".numbers"), 4));
      if (n[0] != 1 && n[0] != -1)
        return {ErrorCode::corrupt_data,
                text(path, ": block ", b, ": the sign is ", n[0], ": the file is damaged, save it again")};
      d.sign = n[0], d.threshold = n[1], d.explained = n[2];
      directions[b] = {b, std::move(d), n[3]};
    } else if (const Index p = detail::block_in(t.name, ".probe"); p >= 0) {
      ANYBIT_TRY(std::vector<double> all, detail::values_of(f, path, t.name));
      ANYBIT_TRY(const std::vector<double> right, detail::values_of(f, path, text("block.", p, ".probe.accuracy"), 1));
      const double intercept = all.back();
      all.pop_back();
      probes[p] = {p, {std::move(all), intercept}, right[0]};
    } else if (t.name.starts_with("shift.") && t.name.ends_with(".theta")) {
      ++shifts;
    }
  }
  for (auto& [b, d] : directions) s.directions.push_back(std::move(d));
  for (auto& [b, p] : probes) s.probes.push_back(std::move(p));
  for (std::size_t i = 0; i < shifts; ++i) {
    HeadShift h;
    ANYBIT_TRY(h.theta, detail::values_of(f, path, text("shift.", i, ".theta"), s.intervention.head_dim));
    ANYBIT_TRY(const std::vector<double> n, detail::values_of(f, path, text("shift.", i, ".numbers"), 2));
    ANYBIT_TRY(const std::vector<std::int64_t> place, f.read<std::int64_t>(text("shift.", i, ".place")));
    if (place.size() != 2)
      return {ErrorCode::corrupt_data, text(path, ": shift ", i, " names no block and head: the file is damaged, save it again")};
    h.sigma = n[0], h.accuracy = n[1];
    h.block = static_cast<Index>(place[0]), h.head = static_cast<Index>(place[1]);
    s.intervention.heads.push_back(std::move(h));
  }
  if (s.directions.empty() && s.probes.empty() && s.intervention.heads.empty())
    return {ErrorCode::insufficient_data, path + ": holds no direction, probe or shift: save it again"};
  return s;
}

/// An error where a file belongs to another model.
inline Status check_belongs(const SteeringFile& s, const model::Decoder& d) {
  if (const std::string own = model_fingerprint(d); s.fingerprint != own)
    return {ErrorCode::invalid_argument,
            io::detail::text("steer: this was read from ", io::detail::shown(s.model), ", fingerprint ",
                             io::detail::shown(s.fingerprint), ", the model has ", own, ": read it again from this model")};
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::steer

#include <anybit/core/macros_end.hpp>
