#pragma once
// Points of a study that are kept in a file as soon as they are measured, so that a study that was cut off goes on where it was.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <anybit/core/result.hpp>

namespace study {

using Values = std::vector<double>;

/// One line per point: "name<TAB>value value ..<TAB>." A line that a kill cut short lacks the full stop and is not read.
class PointFile {
 public:
  explicit PointFile(std::string path) : path_(std::move(path)) {
    std::ifstream in(path_, std::ios::binary);
    for (std::string line; std::getline(in, line); torn_ = in.eof()) {
      const std::size_t tab = line.find('\t');
      if (tab == std::string::npos || !line.ends_with("\t.")) continue;
      std::istringstream numbers(line.substr(tab + 1, line.size() - tab - 3));
      Values values;
      for (std::string word; numbers >> word;) values.push_back(std::strtod(word.c_str(), nullptr));
      points_[line.substr(0, tab)] = std::move(values);
    }
  }

  const Values* find(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto found = points_.find(name);
    return found == points_.end() ? nullptr : &found->second;
  }
  /// In the file when it returns.
  anybit::Status add(const std::string& name, const Values& values) {
    const std::lock_guard lock(mutex_);
    std::string line = (torn_ ? "\n" : "") + name + "\t";
    for (std::size_t i = 0; i < values.size(); ++i) {
      char digits[40];
      std::snprintf(digits, sizeof digits, "%s%.9g", i == 0 ? "" : " ", values[i]);
      line += digits;
    }
    line += "\t.";
    std::ofstream out(path_, std::ios::binary | std::ios::app);
    if (!(out << line << "\n" << std::flush))
      return {anybit::ErrorCode::io, path_ + ": cannot be written: check folder and free space"};
    torn_ = false;
    points_[name] = values;
    return anybit::Ok{};
  }

 private:
  std::string path_;
  std::map<std::string, Values> points_;
  bool torn_ = false;  ///< the file's last line has no end
  mutable std::mutex mutex_;
};

struct Job {
  std::string name;
  std::function<anybit::Result<Values>()> measure;
};

/// Measures the points that the file lacks, `threads` at a time, each on one thread. The first error ends it.
inline anybit::Status measure_points(PointFile& file, const std::vector<Job>& jobs, int threads) {
  std::vector<const Job*> left;
  for (const Job& j : jobs)
    if (!file.find(j.name)) left.push_back(&j);
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  anybit::Status status = anybit::Ok{};
  const auto work = [&] {
    for (std::size_t i = next++; i < left.size(); i = next++) {
      const anybit::Result<Values> values = left[i]->measure();
      anybit::Status kept = values ? file.add(left[i]->name, *values) : anybit::Status(values.error());
      const std::lock_guard lock(mutex);
      if (!kept && status) status = anybit::in_context(kept.error(), left[i]->name);
      if (!status) return;
      std::fprintf(stderr, "%zu of %zu: %s\n", i + 1, left.size(), left[i]->name.c_str());
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
  return status;
}

}  // namespace study
