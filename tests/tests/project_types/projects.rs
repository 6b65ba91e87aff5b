//! The projects: as small as they can be with a dependency, a build and an answer.

/// A project: what it consists of, and what is to come of it.
pub(crate) struct Project {
    pub(crate) name: &'static str,
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Its `template.json`; none: all is inferred from the files.
    pub(crate) template: Option<&'static str>,
    /// Run when it is set up, and what it writes.
    pub(crate) run: (&'static str, &'static str),
    /// What its dev server answers, if it has one.
    pub(crate) serves: Option<&'static str>,
}

const NODE_PACKAGE: &str = r#"{
    "name": "greeter", "version": "1.0.0", "private": true,
    "dependencies": { "ms": "2.1.3" },
    "scripts": { "build": "node build.js", "start": "node server.js" }
}"#;
const NODE_BUILD: &str = "require('fs').writeFileSync('built.txt', `${require('ms')('2 days')}`);\n";
const NODE_SERVER: &str = "require('http').createServer((_, answer) => answer.end(`node ${require('ms')('1s')}`))\
     .listen(process.env.PORT, process.env.HOST);\n";
const NODE_FILES: &[(&str, &str)] =
    &[("package.json", NODE_PACKAGE), ("build.js", NODE_BUILD), ("server.js", NODE_SERVER)];

pub(crate) const NODE: &[Project] = &[
    Project {
        name: "npm",
        files: NODE_FILES,
        template: None,
        run: ("npm run build && cat built.txt", "172800000"),
        serves: Some("node 1000"),
    },
    Project {
        name: "yarn",
        files: NODE_FILES,
        template: Some(
            r#"{"project": "node", "setup": ["npx --yes yarn@1.22.22 install", "npx --yes yarn@1.22.22 build"],
                "dev": "exec npx --yes yarn@1.22.22 start"}"#,
        ),
        run: ("cat built.txt && head -2 yarn.lock", "172800000"),
        serves: Some("node 1000"),
    },
    Project {
        name: "pnpm",
        files: NODE_FILES,
        template: Some(
            r#"{"project": "node", "setup": ["npx --yes pnpm@10 install", "npx --yes pnpm@10 run build"],
                "dev": "exec npx --yes pnpm@10 run start"}"#,
        ),
        run: ("cat built.txt && test -f pnpm-lock.yaml", "172800000"),
        serves: Some("node 1000"),
    },
];

pub(crate) const PYTHON: &[Project] = &[Project {
    name: "pip",
    files: &[
        ("requirements.txt", "flask==3.0.3\n"),
        (
            "app.py",
            "import flask\napp = flask.Flask(__name__)\n\n@app.get('/')\ndef greet():\n    return 'python greets'\n",
        ),
    ],
    template: None,
    run: (".venv/bin/python -c 'import app; print(app.greet())'", "python greets"),
    serves: Some("python greets"),
}];

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>acme</groupId>
  <artifactId>greeter</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency>
      <groupId>org.apache.commons</groupId>
      <artifactId>commons-lang3</artifactId>
      <version>3.12.0</version>
    </dependency>
  </dependencies>
</project>
"#;

const GRADLE: &str = "apply plugin: 'java'

repositories {
    mavenCentral()
}

dependencies {
    compile 'org.apache.commons:commons-lang3:3.12.0'
}
";

pub(crate) const JAVA: &[Project] = &[
    Project {
        name: "maven",
        files: &[
            ("pom.xml", POM),
            (
                "src/main/java/Greeter.java",
                "public class Greeter {\n    public static void main(String[] arguments) {\n        \
                 System.out.println(org.apache.commons.lang3.StringUtils.reverse(\"steerg avaj\"));\n    }\n}\n",
            ),
        ],
        template: None,
        run: ("java -cp target/greeter-1.jar:$(find ~/.m2 -name 'commons-lang3-3.12.0.jar') Greeter", "java greets"),
        serves: None,
    },
    Project {
        name: "gradle",
        files: &[
            ("build.gradle", GRADLE),
            (
                "src/main/java/Greeter.java",
                "public class Greeter {\n    public static void main(String[] arguments) {\n        \
                 System.out.println(org.apache.commons.lang3.StringUtils.reverse(\"steerg eldarg\"));\n    }\n}\n",
            ),
        ],
        template: None,
        run: (
            "java -cp build/classes/java/main:$(find ~/.gradle -name 'commons-lang3-3.12.0.jar') Greeter",
            "gradle greets",
        ),
        serves: None,
    },
];

pub(crate) const GO: &[Project] = &[Project {
    name: "go",
    files: &[
        ("go.mod", "module acme/greeter\n\ngo 1.19\n\nrequire github.com/google/uuid v1.3.0\n"),
        (
            "main.go",
            "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n\t\"os\"\n\n\t\"github.com/google/uuid\"\n)\n\n\
             func main() {\n\tgreeting := \"go \" + uuid.NameSpaceDNS.String()\n\tif len(os.Args) > 1 {\n\t\tfmt.Println(greeting)\n\t\treturn\n\t}\n\t\
             http.HandleFunc(\"/\", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, greeting) })\n\t\
             panic(http.ListenAndServe(os.Getenv(\"HOST\")+\":\"+os.Getenv(\"PORT\"), nil))\n}\n",
        ),
    ],
    template: Some(r#"{"project": "go", "setup": ["go mod tidy", "go build -o greeter ."], "dev": "exec ./greeter"}"#),
    run: ("./greeter once", "go 6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    serves: Some("go 6ba7b810"),
}];

pub(crate) const RUST: &[Project] = &[Project {
    name: "cargo",
    files: &[
        (
            "Cargo.toml",
            "[package]\nname = \"greeter\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\n[dependencies]\nitoa = \"=1.0.1\"\n",
        ),
        (
            "src/main.rs",
            r#"use std::io::{Read, Write};

fn main() {
    let greeting = format!("rust {}", itoa::Buffer::new().format(4711));
    if std::env::args().count() > 1 {
        return println!("{greeting}");
    }
    let address = format!("{}:{}", std::env::var("HOST").unwrap(), std::env::var("PORT").unwrap());
    for stream in std::net::TcpListener::bind(address).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{greeting}", greeting.len());
    }
}
"#,
        ),
    ],
    template: None,
    run: ("cargo run --quiet -- once", "rust 4711"),
    serves: Some("rust 4711"),
}];

pub(crate) const RUBY: &[Project] = &[Project {
    name: "bundler",
    files: &[
        ("Gemfile", "gem 'greeter', path: 'greeter'\n"),
        (
            "greeter/greeter.gemspec",
            "Gem::Specification.new do |gem|\n  gem.name = 'greeter'\n  gem.version = '1.0.0'\n  gem.summary = 'greets'\n  \
             gem.authors = ['acme']\n  gem.files = ['lib/greeter.rb']\nend\n",
        ),
        ("greeter/lib/greeter.rb", "module Greeter\n  def self.greet = 'ruby greets'\nend\n"),
        (
            "app.rb",
            "require 'greeter'\nrequire 'socket'\n\nreturn puts(Greeter.greet) if ARGV.any?\n\n\
             TCPServer.open(ENV['HOST'], ENV['PORT'].to_i) do |server|\n  loop do\n    client = server.accept\n    \
             client.readpartial(4096)\n    client.write(\"HTTP/1.1 200 OK\\r\\nContent-Length: 11\\r\\nConnection: close\\r\\n\\r\\n#{Greeter.greet}\")\n    \
             client.close\n  rescue IOError, SystemCallError\n    nil\n  end\nend\n",
        ),
    ],
    template: None,
    run: ("bundle exec ruby app.rb once", "ruby greets"),
    serves: Some("ruby greets"),
}];

pub(crate) const PHP: &[Project] = &[Project {
    name: "composer",
    files: &[
        (
            "composer.json",
            r#"{
    "name": "acme/site",
    "require": { "acme/greeter": "*@dev" },
    "repositories": [{ "type": "path", "url": "greeter" }, { "packagist.org": false }]
}"#,
        ),
        (
            "greeter/composer.json",
            r#"{ "name": "acme/greeter", "version": "1.0.0", "autoload": { "psr-4": { "Acme\\": "src/" } } }"#,
        ),
        (
            "greeter/src/Greeter.php",
            "<?php\nnamespace Acme;\n\nclass Greeter\n{\n    public static function greet(): string\n    {\n        return 'php greets';\n    }\n}\n",
        ),
        ("index.php", "<?php\nrequire __DIR__ . '/vendor/autoload.php';\necho Acme\\Greeter::greet();\n"),
    ],
    template: None,
    run: ("php index.php", "php greets"),
    serves: Some("php greets"),
}];

pub(crate) const STATIC: &[Project] = &[Project {
    name: "files",
    files: &[("index.html", "<!doctype html><title>it</title><p>a file greets\n")],
    template: None,
    run: ("ls", "index.html"),
    serves: Some("a file greets"),
}];
