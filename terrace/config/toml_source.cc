// toml++ is compiled here and nowhere else; without its exceptions, errors are values.
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_UNDEF_MACROS 0
#define TOML_HEADER_ONLY 1
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <exception>
#include <new>

#include "terrace/config/source_internal.h"

namespace terrace::config {
namespace {

// toml++ frees what it read recursively, and each dot of a key may open a table: without a bound a
// file of "a.a.a…" overflows the stack. Quotes and comments are counted too, for telling them apart
// takes the parser that is to be spared.
constexpr std::ptrdiff_t kMostDots = 16'384;

struct Walk {
  const std::string& path;
  std::vector<Given>& given;
  Problems& problems;

  [[nodiscard]] std::string where(const toml::node& node) const {
    return fmt::format("{}:{}", path, node.source().begin.line);
  }
  void refuse(const std::string& name, const toml::node& node, std::string_view why) const {
    problems.add(fmt::format("setting {} ({}) {}", quote(name), where(node), why));
  }
  void give(const std::string& name, const toml::node& node, Scalar scalar) const {
    if (given.size() >= kMostGiven) return refuse(name, node, "is one setting too many");
    given.push_back({name, std::move(scalar), {Level::kFile, where(node)}, false});
  }
  void list(const std::string& name, const toml::array& array) const {
    std::vector<std::string> items;
    for (const toml::node& item : array) {
      const auto text = item.value_exact<std::string>();
      if (!text) return refuse(name, array, "has something else than texts in its list");
      items.push_back(*text);
    }
    give(name, array, std::move(items));
  }
  void leaf(const std::string& name, const toml::node& node) const {
    if (const auto text = node.value_exact<std::string>()) return give(name, node, *text);
    if (const auto flag = node.value_exact<bool>()) return give(name, node, *flag);
    if (const auto integer = node.value_exact<std::int64_t>()) return give(name, node, *integer);
    if (const auto number = node.value_exact<double>()) return give(name, node, *number);
    refuse(name, node, "is a date or time");
  }
  void table(const std::string& prefix, const toml::table& table_node, std::size_t depth) const {
    for (auto&& [key, node] : table_node) {
      std::string name =
          prefix.empty() ? std::string(key.str()) : fmt::format("{}.{}", prefix, key.str());
      if (const toml::table* inner = node.as_table(); inner != nullptr) {
        if (depth >= kMostDepth) {
          refuse(name, node, "is nested too deeply");
        } else {
          table(name, *inner, depth + 1);
        }
      } else if (const toml::array* array = node.as_array(); array != nullptr) {
        list(name, *array);
      } else {
        leaf(name, node);
      }
    }
  }
};

}  // namespace

void read_toml(std::string_view text, const std::string& path, std::vector<Given>& given,
               Problems& problems) {
  if (std::ranges::count(text, '.') > kMostDots) {
    problems.add(
        fmt::format("{}: has more than {} dots, its keys could be nested too deeply; remove "
                    "what is no setting",
                    path, kMostDots));
    return;
  }
  try {
    const toml::parse_result result = toml::parse(text);
    if (!result) {
      problems.add(fmt::format("{}:{}: not valid TOML: {}", path,
                               result.error().source().begin.line, result.error().description()));
      return;
    }
    Walk{path, given, problems}.table("", result.table(), 1);
  } catch (const std::bad_alloc&) {
    throw;  // No fault of the settings.
  } catch (const std::exception&) {
    problems.add(fmt::format("{}: not valid TOML", path));
  }
}

}  // namespace terrace::config
