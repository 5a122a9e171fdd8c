// A settings file that lasts as long as this object. Tests only. Threading: thread-compatible.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"

namespace terrace::config {

class TomlFile {
 public:
  explicit TomlFile(const std::string& text)
      : path_(::testing::TempDir() + "terrace_" + std::to_string(random_u64()) + ".toml") {
    EXPECT_TRUE(write_file_atomic(path_, text).is_ok());
  }
  TomlFile(const TomlFile&) = delete;
  TomlFile& operator=(const TomlFile&) = delete;
  ~TomlFile() { std::filesystem::remove(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

}  // namespace terrace::config
