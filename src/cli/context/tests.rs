//! Which of flag, environment, file and default wins.

use std::collections::BTreeMap;

use super::*;

fn file() -> File {
    let context = |url: &str, token: &str| Context {
        url: Some(url.into()),
        workspace: Some("kept".into()),
        token: Some(Secret(token.into())),
        token_file: None,
        ca_file: Some(format!("{}.pem", token.trim_start_matches("zz")).into()),
        allow_plain_token: token == "zzw",
    };
    File {
        current: Some("home".into()),
        contexts: [("home", context("http://h:1", "zzh")), ("work", context("http://w:1", "zzw"))]
            .map(|(name, context)| (name.to_owned(), context))
            .into(),
    }
}

fn settled(flags: [Option<&str>; 3], variables: &[(&str, &str)], file: &File) -> Result<Settings, Error> {
    let [url, context, workspace] = flags.map(|flag| flag.map(str::to_owned));
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let environment = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    resolve(&Flags { url, context, workspace, ..Flags::default() }, &environment, file)
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let all = [("AOB_URL", "http://e:1"), ("AOB_WORKSPACE", "env"), ("AOB_TOKEN", "zze")];
    for (flags, variables, wanted) in [
        ([None; 3], &[][..], ("http://h:1", Some("kept"), Some("zzh"))),
        ([None; 3], &all[..], ("http://e:1", Some("env"), Some("zze"))),
        ([Some("http://f:1"), None, Some("flag")], &all[..], ("http://f:1", Some("flag"), Some("zze"))),
        // A context that a flag names goes before the environment.
        ([None, Some("work"), None], &all[..], ("http://w:1", Some("kept"), Some("zzw"))),
        ([None; 3], &[("AOB_CONTEXT", "work")][..], ("http://w:1", Some("kept"), Some("zzw"))),
        // The token of a context is for its own address.
        ([Some("http://f:1"), None, None], &[][..], ("http://f:1", Some("kept"), None)),
        ([Some("http://h:1/"), None, None], &[][..], ("http://h:1/", Some("kept"), Some("zzh"))),
        ([None; 3], &all[..1], ("http://e:1", Some("kept"), None)),
    ] {
        let settings = settled(flags, variables, &file()).unwrap();
        let token = settings.token.as_ref().map(|Secret(token)| token.as_str());
        let found = (settings.url.as_str(), settings.workspace.as_deref(), token);
        assert_eq!(found, wanted, "{flags:?} {variables:?}");
        assert!(!format!("{settings:?}").contains(wanted.2.unwrap_or("zz")));
    }
    let bare = settled([None; 3], &[], &File::default()).unwrap();
    assert_eq!((bare.url.as_str(), bare.token), (DEFAULT_URL, None));
}

#[test]
fn a_context_that_is_not_there_is_an_error_that_names_a_near_one() {
    let error = settled([None, Some("wrok"), None], &[], &file()).unwrap_err();
    assert_eq!(error.to_string(), "there is no context \"wrok\"; did you mean work?");
    assert_eq!(error.exit_code(), 3);
}

// F006
#[test]
fn whom_to_trust_and_what_may_be_shown_come_from_the_same_places() {
    let of = |flags, variables: &[(&str, &str)]| {
        let settings = settled(flags, variables, &file()).unwrap();
        let ca_file = settings.ca_file.unwrap_or_default();
        (ca_file.to_str().unwrap().to_owned(), settings.allow_plain_token)
    };
    let (none, work) = ([None; 3], [None, Some("work"), None]);
    assert_eq!(of(none, &[]), ("h.pem".into(), false));
    assert_eq!(of(none, &[("AOB_CA_FILE", "e.pem")]), ("e.pem".into(), false));
    assert_eq!(of(work, &[("AOB_CA_FILE", "e.pem")]), ("w.pem".into(), true));
    assert_eq!(of(none, &[("AOB_ALLOW_PLAIN_TOKEN", "true")]), ("h.pem".into(), true));
    assert_eq!(of(none, &[("AOB_ALLOW_PLAIN_TOKEN", "no")]), ("h.pem".into(), false));
    // A context's leave is for its own address.
    assert_eq!(of([Some("http://f:1"), Some("work"), None], &[]), ("w.pem".into(), false));
    let by_flag = Flags { ca_file: Some("f.pem".into()), allow_plain_token: true, ..Flags::default() };
    let environment = |name: &str| (name == "AOB_CA_FILE").then(|| String::from("e.pem"));
    let settings = resolve(&by_flag, &environment, &file()).unwrap();
    assert_eq!((settings.ca_file, settings.allow_plain_token), (Some("f.pem".into()), true));
}
