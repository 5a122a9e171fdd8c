#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "terrace/transfer/backends/plugin/plugin_library_internal.h"

namespace terrace::transfer::plugin {

namespace {
constexpr std::size_t kLongestName = 31;
constexpr std::string_view kNameCharacters = "abcdefghijklmnopqrstuvwxyz0123456789_-";

Status refuse(Code code, const std::string& path, const std::string& what) {
  return {code, fmt::format("backend library {}: {}", path, what), Scope::kBackend};
}

// What is loaded runs with this process's rights.
Status check_file(const std::string& path) {
  if (!path.starts_with('/')) return refuse(Code::kInvalid, path, "give an absolute path");
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0) {
    return {Code::kInvalid, "backend library: " + Status::from_errno(errno, "stat", path).message(),
            Scope::kBackend};
  }
  if (!S_ISREG(facts.st_mode)) return refuse(Code::kInvalid, path, "is not a regular file");
  if (facts.st_uid != 0 && facts.st_uid != ::geteuid()) {
    return refuse(Code::kRefused, path, "belongs to another user; its code would run as this one");
  }
  if ((facts.st_mode & S_IWOTH) != 0) {
    return refuse(Code::kRefused, path, "everybody may write to it; chmod o-w it");
  }
  return {};
}

Status check_sizes(const terrace_backend_table& table, const std::string& path) {
  if (table.struct_size < sizeof(terrace_backend_table) ||
      table.transfer_size != sizeof(terrace_backend_transfer) ||
      table.completion_size != sizeof(terrace_backend_completion)) {
    return refuse(
        Code::kRefused, path,
        fmt::format("its structs have {}, {} and {} bytes (table, transfer, completion), here they "
                    "have {}, {} and {}; compile it with this Terrace's include/terrace/backend.h",
                    table.struct_size, table.transfer_size, table.completion_size,
                    sizeof(terrace_backend_table), sizeof(terrace_backend_transfer),
                    sizeof(terrace_backend_completion)));
  }
  return {};
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName &&
         name.find_first_not_of(kNameCharacters) == std::string_view::npos;
}
}  // namespace

Result<Library> check_table(const terrace_backend_table* table, const std::string& path) {
  if (table == nullptr) {
    return fail(refuse(Code::kInvalid, path, TERRACE_BACKEND_ENTRY "() returned no table"));
  }
  if (table->abi_version != TERRACE_BACKEND_ABI) {
    return fail(refuse(Code::kRefused, path,
                       fmt::format("is made for version {} of the plug-in table, this Terrace has "
                                   "{}; compile it with this one's include/terrace/backend.h",
                                   table->abi_version, TERRACE_BACKEND_ABI)));
  }
  TERRACE_RETURN_IF_ERROR(check_sizes(*table, path));
  Library library{*table, {}};
  const char* missing = table->open == nullptr     ? "open"
                        : table->submit == nullptr ? "submit"
                        : table->poll == nullptr   ? "poll"
                        : table->close == nullptr  ? "close"
                                                   : nullptr;
  if (missing != nullptr) {
    return fail(refuse(Code::kInvalid, path, fmt::format("its table has no {}()", missing)));
  }
  if (table->name != nullptr) library.name.assign(table->name, ::strnlen(table->name, 64));
  if (!is_name(library.name)) {
    return fail(
        refuse(Code::kInvalid, path, "its table's name is not 1 to 31 of a-z, 0-9, '_' and '-'"));
  }
  return library;
}

Result<Library> load_library(const std::string& path) {
  TERRACE_RETURN_IF_ERROR(check_file(path));
  // Local: what the host has under these names stays the host's.
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* reason = ::dlerror();
    return fail(refuse(Code::kInvalid, path, reason == nullptr ? "cannot be loaded" : reason));
  }
  using Describe = const terrace_backend_table* (*)();
  const auto describe = reinterpret_cast<Describe>(::dlsym(handle, TERRACE_BACKEND_ENTRY));
  if (describe == nullptr) {
    return fail(refuse(Code::kInvalid, path,
                       "exports no " TERRACE_BACKEND_ENTRY
                       "(); it is no backend, or was linked with hidden symbols"));
  }
  const terrace_backend_table* table = nullptr;
  try {
    table = describe();
  } catch (...) {
    return fail(refuse(Code::kInvalid, path, TERRACE_BACKEND_ENTRY "() threw"));
  }
  return check_table(table, path);
}

}  // namespace terrace::transfer::plugin
