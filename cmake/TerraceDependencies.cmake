# Foreign libraries, all Debian packages. Only position-independent archives are linked into the
# shared library; fmt is compiled in one file of our own (base/fmt.cc) because Debian ships no PIC
# archive of it.
find_package(Threads REQUIRED)

find_path(FMT_INCLUDE fmt/format.h REQUIRED)
add_library(terrace_fmt INTERFACE)
target_include_directories(terrace_fmt SYSTEM INTERFACE ${FMT_INCLUDE})
find_library(CRYPTO_ARCHIVE libcrypto.a REQUIRED)
find_path(OPENSSL_INCLUDE openssl/sha.h REQUIRED)
add_library(terrace_crypto INTERFACE)
target_link_libraries(terrace_crypto INTERFACE ${CRYPTO_ARCHIVE} Threads::Threads ${CMAKE_DL_LIBS})
target_include_directories(terrace_crypto SYSTEM INTERFACE ${OPENSSL_INCLUDE})

find_path(XXHASH_INCLUDE xxhash.h REQUIRED)
add_library(terrace_xxhash INTERFACE)
target_include_directories(terrace_xxhash SYSTEM INTERFACE ${XXHASH_INCLUDE})

find_library(URING_ARCHIVE liburing.a REQUIRED)
find_path(URING_INCLUDE liburing.h REQUIRED)
add_library(terrace_uring INTERFACE)
target_link_libraries(terrace_uring INTERFACE ${URING_ARCHIVE})
target_include_directories(terrace_uring SYSTEM INTERFACE ${URING_INCLUDE})

# Headers only: the library is looked for when somebody uses S3.
find_path(CURL_INCLUDE curl/curl.h REQUIRED)
add_library(terrace_curl_headers INTERFACE)
target_link_libraries(terrace_curl_headers INTERFACE ${CMAKE_DL_LIBS})
target_include_directories(terrace_curl_headers SYSTEM INTERFACE ${CURL_INCLUDE})

find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)
find_path(NLOHMANN_INCLUDE nlohmann/json.hpp REQUIRED)
add_library(terrace_toml INTERFACE)
target_include_directories(terrace_toml SYSTEM INTERFACE ${TOMLPLUSPLUS_INCLUDE})
add_library(terrace_json INTERFACE)
target_include_directories(terrace_json SYSTEM INTERFACE ${NLOHMANN_INCLUDE})
find_library(ZSTD_ARCHIVE libzstd.a REQUIRED)
find_path(ZSTD_INCLUDE zstd.h REQUIRED)
add_library(terrace_zstd INTERFACE)
target_link_libraries(terrace_zstd INTERFACE ${ZSTD_ARCHIVE})
target_include_directories(terrace_zstd SYSTEM INTERFACE ${ZSTD_INCLUDE})
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
add_library(terrace_cli11 INTERFACE)
target_include_directories(terrace_cli11 SYSTEM INTERFACE ${CLI11_INCLUDE})

# Headers only; Boost.System needs no library since 1.69.
find_path(BOOST_INCLUDE boost/beast/http.hpp REQUIRED)
add_library(terrace_beast INTERFACE)
target_link_libraries(terrace_beast INTERFACE Threads::Threads)
target_include_directories(terrace_beast SYSTEM INTERFACE ${BOOST_INCLUDE})
if(TERRACE_SANITIZE MATCHES thread)
  # g++ refuses fences where it watches threads; Asio's are for handlers that several threads run.
  target_compile_definitions(terrace_beast INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
endif()

if(TERRACE_TESTS)
  enable_testing()
  find_package(GTest REQUIRED)
  add_library(terrace_gtest INTERFACE)
  target_link_libraries(terrace_gtest INTERFACE GTest::gtest_main GTest::gmock)
endif()
