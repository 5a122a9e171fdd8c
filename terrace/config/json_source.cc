#include <fmt/format.h>

#include <exception>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>

#include "terrace/config/source_internal.h"
#include "terrace/config/value.h"

namespace terrace::config {
namespace {

using Json = nlohmann::json;
constexpr std::string_view kOrigin = "engine JSON";

// Flattens while parsing: no tree is built, so nothing is recursive and repeated keys are seen.
class Flattener final : public nlohmann::json_sax<Json> {
 public:
  Flattener(std::vector<Given>& given, Problems& problems) : given_(given), problems_(problems) {}

  bool null() override {
    const Row* const row = find_row(name());
    if (row == nullptr) return refuse("is null; leave it out");
    return refuse(
        fmt::format("is null; leave it out for its default, or give {}", allowed_text(*row)));
  }
  bool boolean(bool value) override { return give(value); }
  bool number_integer(number_integer_t value) override { return give(std::int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return refuse("is too large");
    }
    return give(static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return give(double{value}); }
  bool string(string_t& value) override {
    if (!is_in_list_) return give(value);
    if (list_.size() >= kMostGiven) return refuse("has too many items");
    list_.push_back(value);
    return true;
  }
  bool binary(binary_t&) override { return refuse("is binary"); }

  bool start_object(std::size_t) override {
    if (is_in_list_) return refuse("has an object in its list");
    if (names_.size() >= kMostDepth) return refuse("is nested too deeply");
    names_.emplace_back();
    return true;
  }
  bool key(string_t& name) override {
    names_.back() = name;
    return true;
  }
  bool end_object() override {
    names_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    if (names_.empty()) return refuse("is a list, not an object");
    if (is_in_list_) return refuse("has a list in its list");
    is_in_list_ = true;
    list_.clear();
    return true;
  }
  bool end_array() override {
    is_in_list_ = false;
    return give(list_);
  }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    problems_.add(
        fmt::format("{}: not valid JSON at byte {}, near {}", kOrigin, position, quote(token)));
    return false;
  }

 private:
  [[nodiscard]] std::string name() const { return fmt::format("{}", fmt::join(names_, ".")); }
  bool refuse(std::string_view why) {
    const std::string at = name();
    problems_.add(at.empty() ? fmt::format("{} {}; give an object of settings", kOrigin, why)
                             : fmt::format("setting {} ({}) {}", quote(at), kOrigin, why));
    return false;
  }
  bool give(Scalar scalar) {
    if (is_in_list_) return refuse("has something else than texts in its list");
    if (names_.empty()) return refuse("is not an object");
    if (given_.size() >= kMostGiven) return refuse("is one setting too many");
    given_.push_back({name(), std::move(scalar), {Level::kEngine, std::string(kOrigin)}, false});
    return true;
  }

  std::vector<Given>& given_;
  Problems& problems_;
  std::vector<std::string> names_;  // One per open object: the key being read.
  std::vector<std::string> list_;
  bool is_in_list_ = false;
};

}  // namespace

void read_json(const Sources& sources, std::vector<Given>& given, Problems& problems) {
  const std::string& text = sources.engine_json;
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return;
  if (text.size() > kMostSourceBytes.value()) {
    problems.add(fmt::format("{}: {} bytes are more than the {} allowed", kOrigin, text.size(),
                             kMostSourceBytes.value()));
    return;
  }
  Flattener flattener(given, problems);
  try {
    // A refusal has already been recorded as a problem.
    static_cast<void>(Json::sax_parse(text, &flattener));
  } catch (const std::bad_alloc&) {
    throw;  // No fault of the settings.
  } catch (const std::exception&) {
    problems.add(fmt::format("{}: not valid JSON", kOrigin));
  }
}

}  // namespace terrace::config
