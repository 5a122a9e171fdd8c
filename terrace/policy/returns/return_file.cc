// Counts as bytes: a magic number with the version, the number of classes, then for each its
// parent, its name, its returns and its counts at risk, all little-endian.
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "terrace/policy/returns/return_model.h"

namespace terrace::policy {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kMagic = 0x3230'4E52'5452'4554;  // "TERTRN02"
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

std::uint32_t name_of(Trait trait) {
  return (static_cast<std::uint32_t>(trait.level) << 8U) | trait.value;
}

std::optional<Trait> trait_of(std::uint32_t name) {
  if (name >> 8U == 0 || name >> 8U >= kLevelCount) return std::nullopt;
  return Trait{static_cast<Level>(name >> 8U), static_cast<std::uint8_t>(name & 255U)};
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
  // Parents stand before their children, which may have lower places: one generation at a time.
  std::vector<Place> order{ClassTree::kRoot};
  std::vector<std::uint32_t> number(tree_.size());
  for (std::size_t first = 0, end = 1; first < end; first = end, end = order.size()) {
    for (Place place = 1; place < tree_.size(); ++place) {
      const Place parent = tree_.parent(place);
      const std::uint32_t at = number[parent];
      if (at < first || at >= end || order[at] != parent) continue;
      number[place] = static_cast<std::uint32_t>(order.size());
      order.push_back(place);
    }
  }
  std::string bytes;
  bytes.reserve(sizeof kMagic + 4 + order.size() * (8 + 2 * sizeof(ByAge)));
  put(bytes, kMagic);
  put(bytes, static_cast<std::uint32_t>(order.size()));
  for (const Place place : order) {
    put(bytes, number[tree_.parent(place)]);
    put(bytes, name_of(tree_.trait(place)));
    put(bytes, classes_[place].returns);
    put(bytes, classes_[place].at_risk);
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
  // Classes keep their places: blocks bear them.
  for (std::size_t of = 0; of < tree_.size(); ++of) {
    classes_[of].returns.fill(0);
    classes_[of].at_risk.fill(0);
  }
  std::vector<Place> places(count);
  for (std::uint32_t of = 0; of < count; ++of) {
    const Saved& one = saved[of];
    if (of > 0) {
      const Place parent = places[one.parent];
      const auto trait = trait_of(one.name);
      places[of] = trait ? class_of(parent, *trait, false) : parent;
      if (places[of] == parent) continue;  // No room for it, or nothing that there is any more.
    }
    Class& own = classes_[places[of]];
    own.returns = one.returns;
    own.at_risk = one.at_risk;
    // As many requests as have not returned at once, over as long.
    tree_.set_uses(places[of], own.at_risk[0] * ClassTree::kUsesHalf / kMostRequests);
  }
  noted_ = {};
  for (std::size_t of = 0; of < tree_.size(); ++of) note_spread(static_cast<Place>(of));
  spreads_ = std::exchange(noted_, {});
  for (std::size_t of = 0; of < tree_.size(); ++of) judge(static_cast<Place>(of));
  return {};
}

}  // namespace terrace::policy
