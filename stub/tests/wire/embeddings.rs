//! Embeddings.

use serde_json::{Value, json};

use super::{post, scripted, started};

const EMBEDDINGS: &str = "/v1/embeddings";

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn texts_become_vectors_that_follow_from_them() {
    let stub = started().await;
    let body = json!({"model": "text-embedding-3-small", "input": ["one two", "two one!", "three"]});
    let answer = post(&stub, EMBEDDINGS, &body).await;
    let shown = answer.json();
    assert_eq!((&shown["object"], &shown["data"][2]["index"]), (&json!("list"), &json!(2)));
    assert_eq!(shown["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    let vectors: Vec<Vec<f64>> = (0..3).map(|at| numbers(&shown["data"][at]["embedding"])).collect();
    assert_eq!(vectors[0].len(), 1_536);
    let near = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum::<f64>();
    assert!(near(0, 1) > 0.99 && near(0, 2) < 0.3, "{} {}", near(0, 1), near(0, 2));
    assert_eq!(post(&stub, EMBEDDINGS, &body).await.body, answer.body);
}

#[tokio::test]
async fn dimensions_tokens_and_base64_are_understood() {
    let stub = started().await;
    let plain = post(&stub, EMBEDDINGS, &json!({"model": "m", "input": "a", "dimensions": 3})).await.json();
    let vector = numbers(&plain["data"][0]["embedding"]);
    let body = json!({"model": "m", "input": "a", "dimensions": 3, "encoding_format": "base64"});
    let packed = post(&stub, EMBEDDINGS, &body).await.json();
    let text = packed["data"][0]["embedding"].as_str().unwrap().to_owned();
    assert_eq!((vector.len(), text.len()), (3, 16), "12 bytes");
    // The first number is the first four bytes, which the first six letters hold.
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits =
        text.chars().take(6).fold(0_u64, |bits, letter| bits << 6 | letters.find(letter).unwrap() as u64);
    let bytes = u32::try_from(bits >> 4).unwrap().to_be_bytes();
    assert!((f64::from(f32::from_le_bytes(bytes)) - vector[0]).abs() < 1e-6);
    let tokens = post(&stub, EMBEDDINGS, &json!({"model": "m", "input": [[1, 2], [3]]})).await.json();
    assert_eq!(tokens["data"].as_array().unwrap().len(), 2);
    let large =
        post(&stub, EMBEDDINGS, &json!({"model": "text-embedding-3-large", "input": [1, 2]})).await.json();
    assert_eq!(numbers(&large["data"][0]["embedding"]).len(), 3_072);
}

#[tokio::test]
async fn what_is_no_input_is_refused_and_scripts_count_here_too() {
    let stub = scripted(json!([{"when": {"api": "embeddings", "nth": 1}, "do": {"status": 500}}])).await;
    let good = json!({"model": "m", "input": "a"});
    assert_eq!(post(&stub, EMBEDDINGS, &good).await.status, 500);
    assert_eq!(post(&stub, EMBEDDINGS, &good).await.status, 200);
    for body in [
        json!({"model": "m"}),
        json!({"model": "m", "input": ""}),
        json!({"model": "m", "input": [1, "a"]}),
        json!({"model": "m", "input": "a", "dimensions": 0}),
        json!({"model": "m", "input": vec!["a"; 2_048], "dimensions": 4_096}),
        json!({"model": "m", "input": vec!["a"; 2_049]}),
        json!({"model": "m", "input": "a", "encoding_format": "zip"}),
    ] {
        assert_eq!(post(&stub, EMBEDDINGS, &body).await.status, 400, "{body}");
    }
}
