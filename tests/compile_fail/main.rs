//! Launches that must not compile.

#[test]
fn wrong_launches_do_not_compile() {
    trybuild::TestCases::new().compile_fail("compile_fail/cases/*.rs");
}
