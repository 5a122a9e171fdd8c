// Counts as bytes: a magic number with the version, the number of classes, then for each its
// parent, its name, its returns and its counts at risk, all little-endian.
#include <bit>
#include <cmath>
#include <cstring>

#include "terrace/policy/returns/return_model.h"

namespace terrace::policy {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kMagic = 0x3130'4E52'5452'4554;  // "TERTRN01"
constexpr float kMostCount = 1e9F;

template <typename T>
void put(std::string& to, const T& value) {
  const std::size_t at = to.size();
  to.resize(at + sizeof(T));
  std::memcpy(to.data() + at, &value, sizeof(T));
}

template <typename T>
bool get(std::string_view& from, T& value) {
  if (from.size() < sizeof(T)) return false;
  from.copy(reinterpret_cast<char*>(&value), sizeof(T));
  from.remove_prefix(sizeof(T));
  return true;
}

Status wrong() { return {Code::kInvalid, "no counts of returns, or of another version of them"}; }

template <typename Counts>
bool are_counts(const Counts& counts) {
  for (const float count : counts) {
    if (!(count >= 0 && count <= kMostCount)) return false;  // Nor a NaN.
  }
  return true;
}

}  // namespace

std::string ReturnModel::save() const {
  std::string bytes;
  bytes.reserve(sizeof kMagic + 4 + used_ * (8 + 2 * sizeof classes_[0].returns));
  put(bytes, kMagic);
  put(bytes, static_cast<std::uint32_t>(used_));
  for (std::size_t of = 0; of < used_; ++of) {
    put(bytes, static_cast<std::uint32_t>(classes_[of].parent));
    put(bytes, classes_[of].name);
    put(bytes, classes_[of].returns);
    put(bytes, classes_[of].at_risk);
  }
  return bytes;
}

Status ReturnModel::load(std::string_view bytes) {
  struct Saved {
    std::uint32_t parent = 0;
    std::uint32_t name = 0;
    std::array<float, kBuckets> returns{};
    std::array<float, kBuckets> at_risk{};
  };
  std::uint64_t magic = 0;
  std::uint32_t count = 0;
  if (!get(bytes, magic) || magic != kMagic || !get(bytes, count)) return wrong();
  if (count == 0 || count > kMostClasses) return wrong();
  std::vector<Saved> saved(count);
  for (std::uint32_t of = 0; of < count; ++of) {
    Saved& one = saved[of];
    const bool is_whole = get(bytes, one.parent) && get(bytes, one.name) &&
                          get(bytes, one.returns) && get(bytes, one.at_risk);
    if (!is_whole || (of == 0 ? one.parent != 0 : one.parent >= of)) return wrong();
    if (!are_counts(one.returns) || !are_counts(one.at_risk)) return wrong();
  }
  if (!bytes.empty()) return wrong();
  // Numbers of classes stay what they are: blocks bear them.
  for (std::size_t of = 0; of < used_; ++of) {
    classes_[of].returns.fill(0);
    classes_[of].at_risk.fill(0);
  }
  std::vector<std::uint16_t> number(count);
  for (std::uint32_t of = 0; of < count; ++of) {
    if (of > 0) number[of] = class_of(number[saved[of].parent], saved[of].name);
    if (of > 0 && number[of] == number[saved[of].parent]) continue;  // No room for it.
    classes_[number[of]].returns = saved[of].returns;
    classes_[number[of]].at_risk = saved[of].at_risk;
  }
  for (std::size_t of = 0; of < used_; ++of) judge(of);
  return {};
}

}  // namespace terrace::policy
