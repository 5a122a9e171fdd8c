#include <algorithm>

#include "terrace/base/check.h"
#include "terrace/config/value.h"

namespace terrace::config {
namespace {

struct Store {
  const Row& row;
  const Value& value;
  void operator()(bool* target) const { *target = std::get<bool>(value); }
  void operator()(double* target) const { *target = std::get<double>(value); }
  void operator()(std::string* target) const { *target = std::get<std::string>(value); }
  void operator()(std::vector<std::string>* target) const {
    *target = std::get<std::vector<std::string>>(value);
  }
  void operator()(std::uint32_t* target) const {
    *target = static_cast<std::uint32_t>(std::get<std::int64_t>(value));
  }
  void operator()(std::uint64_t* target) const {
    *target = static_cast<std::uint64_t>(std::get<std::int64_t>(value));
  }
  void operator()(Bytes* target) const {
    *target = Bytes(static_cast<std::uint64_t>(std::get<std::int64_t>(value)));
  }
  void operator()(Blocks* target) const {
    *target = Blocks(static_cast<std::uint64_t>(std::get<std::int64_t>(value)));
  }
  void operator()(Nanoseconds* target) const {
    *target = Nanoseconds(std::get<std::int64_t>(value));
  }
  void operator()(EnumField field) const {
    const auto words = split_words(row.choices, '|');
    const auto at = std::ranges::find(words, std::string_view(std::get<std::string>(value)));
    TERRACE_CHECK(at != words.end());
    field.store(field.target, static_cast<std::size_t>(at - words.begin()));
  }
};

struct Fetch {
  const Row& row;
  Value operator()(const bool* field) const { return *field; }
  Value operator()(const double* field) const { return *field; }
  Value operator()(const std::string* field) const { return *field; }
  Value operator()(const std::vector<std::string>* field) const { return *field; }
  Value operator()(const std::uint32_t* field) const { return std::int64_t{*field}; }
  Value operator()(const std::uint64_t* field) const { return static_cast<std::int64_t>(*field); }
  Value operator()(const Bytes* field) const { return static_cast<std::int64_t>(field->value()); }
  Value operator()(const Blocks* field) const { return static_cast<std::int64_t>(field->value()); }
  Value operator()(const Nanoseconds* field) const { return field->value(); }
  Value operator()(EnumField field) const {
    const auto words = split_words(row.choices, '|');
    return std::string(words.at(field.fetch(field.target)));
  }
};

}  // namespace

void store_value(const Row& row, const Value& value, Settings& settings) {
  std::visit(Store{row, value}, row.field(settings));
}

Value fetch_value(const Row& row, const Settings& settings) {
  Settings copy = settings;
  return std::visit(Fetch{row}, row.field(copy));
}

}  // namespace terrace::config
