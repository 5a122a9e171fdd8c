#include "terrace/memory/memory_room.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <ranges>
#include <string_view>

#include "terrace/base/file.h"

namespace terrace::memory {
namespace {

constexpr Bytes kFileLimit = 1_MiB;

std::optional<std::uint64_t> number_at_start(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  text.remove_prefix(first);
  std::uint64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc{}) return {};
  return value;
}

std::optional<std::uint64_t> number_in(const std::string& path) {
  const auto content = read_file(path, kFileLimit);
  if (!content.has_value()) return {};
  return number_at_start(*content);  // "max" is no number: no limit.
}

// The number after `name` at the start of a line.
std::optional<std::uint64_t> number_after(std::string_view content, std::string_view name) {
  while (!content.empty()) {
    const auto end = content.find('\n');
    const std::string_view line = content.substr(0, end);
    if (line.starts_with(name)) return number_at_start(line.substr(name.size()));
    if (end == std::string_view::npos) break;
    content.remove_prefix(end + 1);
  }
  return {};
}

struct Hierarchy {
  std::string mount;  // Folder of the hierarchy's root.
  const char* limit;
  const char* usage;
  const char* reclaimable;  // In memory.stat.
};

// In a list of the first version's controllers that are mounted together.
bool has_memory(std::string_view controllers) {
  for (const auto controller : std::views::split(controllers, ',')) {
    if (std::string_view(controller) == "memory") return true;
  }
  return false;
}

void narrow(MemoryRoom& room, std::uint64_t bytes, const std::string& limit) {
  if (Bytes(bytes) < room.bytes) room = {Bytes(bytes), limit};
}

void narrow_by_group(MemoryRoom& room, const Hierarchy& hierarchy, const std::string& folder) {
  const std::string limit_file = folder + "/" + hierarchy.limit;
  const auto limit = number_in(limit_file);
  const auto usage = number_in(folder + "/" + hierarchy.usage);
  if (!limit || !usage) return;
  std::uint64_t reclaimable = 0;
  if (const auto stat = read_file(folder + "/memory.stat", kFileLimit)) {
    reclaimable = number_after(*stat, hierarchy.reclaimable).value_or(0);
  }
  const std::uint64_t used = *usage > reclaimable ? *usage - reclaimable : 0;
  narrow(room, *limit > used ? *limit - used : 0, limit_file);
}

// The group and all above it; in a container the path may be the host's and not exist here, but the
// hierarchy's root always does.
void narrow_by_path(MemoryRoom& room, const Hierarchy& hierarchy, std::string_view path) {
  while (path.starts_with('/') && path != "/") {
    narrow_by_group(room, hierarchy, hierarchy.mount + std::string(path));
    path = path.substr(0, path.rfind('/'));
  }
  narrow_by_group(room, hierarchy, hierarchy.mount);
}

}  // namespace

MemoryRoom memory_room(const std::string& root) {
  MemoryRoom room{Bytes(UINT64_MAX), "none"};
  if (const auto content = read_file(root + "/proc/meminfo", kFileLimit)) {
    if (const auto kib = number_after(*content, "MemAvailable:")) {
      narrow(room, *kib << 10U, "MemAvailable of /proc/meminfo");
    }
  }
  const auto groups = read_file(root + "/proc/self/cgroup", kFileLimit);
  if (!groups.has_value()) return room;
  const Hierarchy unified{root + "/sys/fs/cgroup", "memory.max", "memory.current",
                          "inactive_file "};
  const Hierarchy legacy{root + "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                         "memory.usage_in_bytes", "total_inactive_file "};
  std::string_view rest = *groups;
  while (!rest.empty()) {  // Lines `number:controllers:/path`.
    const auto end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    const auto first = line.find(':');
    const auto second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second != std::string_view::npos) {
      const std::string_view controllers = line.substr(first + 1, second - first - 1);
      const std::string_view path = line.substr(second + 1);
      if (controllers.empty()) narrow_by_path(room, unified, path);
      if (has_memory(controllers)) narrow_by_path(room, legacy, path);
    }
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return room;
}

}  // namespace terrace::memory
