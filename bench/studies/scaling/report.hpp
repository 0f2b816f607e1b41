#pragma once
// The outcome of a law: lines that say how it was fitted and whether published claims hold, a table, a picture.

#include <array>
#include <cstdarg>
#include <functional>
#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/model/decoder.hpp>

#include "scaling/nets.hpp"
#include "scaling/points.hpp"
#include "scaling/regression.hpp"

namespace study {

struct Series {
  std::string name;
  std::vector<std::array<double, 2>> points;
  bool marks = true;  ///< else a line alone
  bool line = true;
};

struct Chart {
  std::string title, x_name;
  bool log2_x = false;  ///< x is given as it is and drawn by its logarithm; places are marked at powers of two
  std::vector<Series> series{};
};

/// Charts side by side, with a common heading.
std::string draw(const std::string& heading, const std::vector<Chart>& charts);

/// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string line(const char* format, ...);
/// "0.290 [0.251, 0.329]".
std::string shown(const Interval& i);

struct Report {
  std::vector<std::string> lines;  ///< printed, and kept in NAME.txt
  std::string csv;                 ///< NAME.csv
  std::string picture;             ///< NAME.svg

  void verdict(const std::string& claim, const std::string& what) { lines.push_back("verdict: " + claim + ": " + what); }
  /// The fit of a law, a line per coefficient.
  void fit(const std::string& name, const Table& t, const Fit& f);
};

/// A study: where its points are, what it reads, how much of it is measured.
struct Study {
  PointFile& points;
  Corpus corpus;
  std::string folder;  ///< for states of models that several points start from
  std::string model;   ///< a GGUF file; empty: laws of a real model are left out
  std::string text;    ///< the corpus as a string
  bool quick = false;  ///< a few steps of every law: whether it runs, not what holds
  int threads = 2;

  std::vector<Index> widths() const { return quick ? std::vector<Index>{8, 16} : std::vector<Index>{16, 24, 32, 40, 48}; }
  Index windows() const { return quick ? 2 : 64; }
};

/// Runs one net: the point "train WIDTH PER CONTEXT GRID SEED", whose values are loss, accuracy, dead share and tokens.
Job training_job(const Study& s, Index width, double tokens_per_weight, const Grid& grid, std::uint64_t seed);

anybit::Result<Report> size_law(Study& s);     ///< penalty by the number of weights
anybit::Result<Report> width_law(Study& s);    ///< bits that a width needs
anybit::Result<Report> tokens_law(Study& s);   ///< penalty, and which width is best, by tokens per weight
anybit::Result<Report> damage_law(Study& s);   ///< rounding behind training, along the training
anybit::Result<Report> context_law(Study& s);  ///< P = f(n, c, 3, x)
anybit::Result<Report> smollm2_law(Study& s);  ///< f(c, x) of a real model that is not trained
anybit::Result<Report> spread_law(Study& s);   ///< whether neuron spread finds the layers that matter

}  // namespace study
