#include <fmt/format.h>

#include <cstdint>

#include "terrace/transfer/backends/dir/names_internal.h"

namespace terrace::transfer::dir {

namespace {
constexpr std::size_t kMostHostBytes = 40;  // "=new-" + 40 + two numbers stays below 255.

// FNV-1a, 32 bits, folded to 12. (Fowler, Noll, Vo; RFC 9923.)
unsigned twelve_bits(std::string_view text) {
  std::uint32_t hash = 2166136261U;
  for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 16777619U;
  return (hash ^ (hash >> 12U) ^ (hash >> 24U)) & 0xFFFU;
}
}  // namespace

std::string bucket_of(std::string_view leaf) { return fmt::format("={:03x}", twelve_bits(leaf)); }

Place place_of(std::string_view name) {
  const std::size_t slash = name.rfind('/');
  Place place;
  if (slash != std::string_view::npos) place.folder = std::string(name.substr(0, slash + 1));
  place.leaf = std::string(slash == std::string_view::npos ? name : name.substr(slash + 1));
  place.folder += bucket_of(place.leaf);
  return place;
}

bool is_bucket(std::string_view entry) {
  return entry.size() == 4 && entry[0] == '=' &&
         entry.find_first_not_of("0123456789abcdef", 1) == std::string_view::npos;
}

bool is_leftover(std::string_view entry) { return entry.starts_with(kLeftoverStart); }

std::string leftover_name(std::string_view host, long process, unsigned long random) {
  std::string safe;
  for (const char byte : host.substr(0, kMostHostBytes)) {
    const bool is_plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                          (byte >= '0' && byte <= '9') || byte == '.' || byte == '_';
    safe += is_plain ? byte : '_';
  }
  return fmt::format("{}{}-{}-{:016x}", kLeftoverStart, safe, process, random);
}

}  // namespace terrace::transfer::dir
