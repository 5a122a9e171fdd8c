#include "terrace/testing/bench_json.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>

namespace terrace::testing {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const auto colon = line.find(": ");
    return colon == std::string::npos ? "" : line.substr(colon + 2);
  }
  return "";
}

// "ext4 /dev/vda1": the file system and device that hold `path`, from the mount table.
std::string disk_of(std::string_view path) {
  struct stat info{};
  if (path.empty() || stat(std::string(path).c_str(), &info) != 0) return "";
  const std::string device = fmt::format(" {}:{} ", major(info.st_dev), minor(info.st_dev));
  std::ifstream file("/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.find(device) == std::string::npos) continue;
    const auto dash = line.find(" - ");  // "… - type source options"
    if (dash == std::string::npos) continue;
    const auto after_type = line.find(' ', dash + 3);
    return line.substr(dash + 3, line.find(' ', after_type + 1) - dash - 3);
  }
  return "";
}

double at_quantile(const std::vector<double>& sorted, double quantile) {
  const double position = quantile * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

}  // namespace

Machine machine_facts(std::string_view disk_path) {
  struct utsname system{};
  uname(&system);
  const auto pages = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const auto page_bytes = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PAGESIZE)));
  return {.cpu = cpu_model(),
          .cores = static_cast<unsigned>(std::max(1, get_nprocs())),
          .memory_bytes = pages * page_bytes,
          .disk = disk_of(disk_path),
          .kernel = system.release,
          .gpu = {}};
}

std::string source_revision() {
  struct Closer {
    void operator()(FILE* pipe) const { pclose(pipe); }
  };
  const std::unique_ptr<FILE, Closer> pipe(
      popen("git -C '" TERRACE_SOURCE_DIR "' rev-parse --short HEAD 2>/dev/null", "re"));
  std::array<char, 64> line{};
  if (pipe == nullptr || std::fgets(line.data(), line.size(), pipe.get()) == nullptr) {
    return "unknown";
  }
  std::string revision = line.data();
  while (!revision.empty() && revision.back() == '\n') revision.pop_back();
  return revision;
}

Spread spread_of(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  return {at_quantile(samples, 0.25), at_quantile(samples, 0.5), at_quantile(samples, 0.75)};
}

BenchResult& BenchResult::param(std::string_view key, std::int64_t value) {
  params.emplace_back(key, fmt::format("{}", value));
  return *this;
}

BenchResult& BenchResult::param(std::string_view key, std::string_view value) {
  params.emplace_back(key, quoted(value));
  return *this;
}

std::string json_line(const BenchResult& result, const Machine& machine) {
  std::string params;
  for (const auto& [key, value] : result.params) {
    params += fmt::format("{}{}:{}", params.empty() ? "" : ",", quoted(key), value);
  }
  const Spread ours = spread_of(result.samples);
  std::string limit = R"("limit_name":null,"limit":null,"ratio":null)";
  if (!result.limit_samples.empty()) {
    const double median = spread_of(result.limit_samples).median;
    limit =
        fmt::format(R"("limit_name":{},"limit":{:.6g},"ratio":{:.4f})", quoted(result.limit_name),
                    median, median == 0 ? 0.0 : ours.median / median);
  }
  return fmt::format(
      R"({{"name":{},"params":{{{}}},"unit":{},"better":"{}","value":{:.6g},"p25":{:.6g},)"
      R"("p75":{:.6g},"runs":{},{},"machine":{{"cpu":{},"cores":{},"memory_bytes":{},)"
      R"("gpu":{},"disk":{},"kernel":{}}},"commit":{}}})",
      quoted(result.name), params, quoted(result.unit),
      result.higher_is_better ? "higher" : "lower", ours.median, ours.p25, ours.p75,
      result.samples.size(), limit, quoted(machine.cpu), machine.cores, machine.memory_bytes,
      machine.gpu.empty() ? "null" : quoted(machine.gpu), quoted(machine.disk),
      quoted(machine.kernel), quoted(source_revision()));
}

void print(const BenchResult& result, const Machine& machine) {
  std::puts(json_line(result, machine).c_str());
  std::fflush(stdout);
}

std::vector<std::vector<double>> alternate(int runs,
                                           const std::vector<std::function<double()>>& functions) {
  std::vector<std::vector<double>> samples(functions.size());
  for (const auto& function : functions) (void)function();
  for (int run = 0; run < runs; ++run) {
    for (std::size_t i = 0; i < functions.size(); ++i) {
      const std::size_t which = (i + static_cast<std::size_t>(run)) % functions.size();
      samples[which].push_back(functions[which]());
    }
  }
  return samples;
}

double seconds_of(const Clock& clock, const std::function<void()>& body) {
  const Nanoseconds start = clock.now();
  body();
  return static_cast<double>((clock.now() - start).value()) * 1e-9;
}

}  // namespace terrace::testing
